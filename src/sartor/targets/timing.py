"""The honest protocol: networks visited in shuffled, interleaved rounds beside a reference. Knows callables only.

A sample is the fastest run of a visit, a network's value the smallest sample. Ways to get a value from the same runs
were compared by the difference between two passes over 20 networks (12 rounds, 4 to 6 passes, 90th percentile of
all pairs, in per cent) on a virtual machine of two cores, with one thread:

                                               quiet   busy: load average 1.5    2.3    3.0
    visit median,  median of rounds              3.4                      84     49     81
    visit median,  median of round / reference   1.6                      54     29     57
    visit minimum, median of rounds              3.1                      13     34     48
    visit minimum, median of round / reference   1.2                      11     20     46
    visit minimum, lower quartile                3.0                       7     21     15
    visit minimum, minimum                       3.7                       4      9      6
    visit minimum, minimum / reference           2.2                       5     10      7

(In the columns 1.5 and 2.3 a visit went on, up to 60 ms, until one run was not preempted.) The protocol below on 24
networks of 21 slots at 224 px, 5 to 7 ms each, under a load average of 3: minima 3.5, medians 32.

Interference only adds, so minima win as soon as there is any; dividing by the reference removes the slow drift of a
quiet machine but adds the reference's own noise on a busy one. Both are stored, so that it can be done afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sartor.targets.pack import Failed

Runnable: TypeAlias = Callable[[], object]
"""One inference, complete when it returns."""


@dataclass(frozen=True)
class Rounds:
    """How networks are timed.

    chunk: networks whose sessions live at one time (the reference comes on top); rounds: visits a network gets;
    visit_ms, visit_runs: a visit lasts at least that long and that many timed runs; warmup_ms: how long a network
    runs untimed before the rounds; drift: share by which the reference may move before it is warned about.
    """

    chunk: int = 24
    rounds: int = 12
    visit_ms: float = 15.0
    visit_runs: int = 3
    warmup_ms: float = 50.0
    drift: float = 0.10


@dataclass(frozen=True)
class Timed:
    """Samples of one network, one a round; reference: those of the reference network in the same rounds."""

    samples: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    failed: Failed | None = None


def visit(run: Runnable, min_ms: float, min_runs: int) -> float:
    """The fastest of several back-to-back runs, in ms; a first one, which finds the caches full of another network,
    is not counted."""
    run()
    fastest, total, runs = float("inf"), 0.0, 0
    while total < min_ms or runs < min_runs:
        began = time.perf_counter_ns()
        run()
        took = (time.perf_counter_ns() - began) / 1e6
        fastest, total, runs = min(fastest, took), total + took, runs + 1
    return fastest


def interleave(
    runs: Sequence[Runnable | Failed],
    reference: Runnable | None,
    sample: Callable[[Runnable], float],
    rounds: int,
    rng: np.random.Generator,
) -> list[Timed]:
    """Sample every network once a round, in a new order each round, the reference in its place among them.

    Returns one result per entry of `runs`, in order. What a network raises is its failure, and the rest goes on.
    """
    everyone = [*runs, *([] if reference is None else [reference])]
    samples: list[list[float]] = [[] for _ in everyone]
    failed = {k: run for k, run in enumerate(everyone) if isinstance(run, Failed)}
    for _ in range(rounds):
        for k in map(int, rng.permutation(len(everyone))):
            run = everyone[k]
            if k not in failed and not isinstance(run, Failed):
                try:
                    samples[k].append(sample(run))
                except Exception as error:
                    failed[k] = Failed.at("run", error)
    beside = () if reference is None or len(runs) in failed else tuple(samples[-1])
    return [Timed(failed=failed[k]) if k in failed else Timed(tuple(samples[k]), beside) for k in range(len(runs))]


def drift(reference: Sequence[float]) -> float:
    """How far the reference moved, as a share: its first, middle and last rounds compared by their minima."""
    thirds = [float(third.min()) for third in np.array_split(np.asarray(reference), 3) if len(third)]
    return max(thirds) / min(thirds) - 1
