"""The honest protocol: networks visited in shuffled, interleaved rounds beside a reference. Knows callables only.

A sample is the fastest run of a visit. What a network's samples (12, one a round) are condensed to was chosen by how
far two passes over 24 networks of 21 slots at 224 px (1 to 8 ms) differ, 90th percentile in per cent, 4 passes each in
turn over ten minutes, on a virtual machine of two cores, one thread; other processes kept 0 to 3 cores busy:

    busy processes                                      0       1       2       3
    minimum                                            8.8     5.7    10       79
    minimum / minimum of the reference                 3.6     3.3    13       64
    mean of the lowest third                           7.9     5.5    18       27
    the same / that of the reference                   3.4     2.5    55       37
    median / median of the reference                   3.1     3.1   101        4
    the same if the reference is steady, or minimum    3.4     2.5    10       79

Steady is a reference whose median is within 10 % of its minimum. Dividing takes out the slow drift that dominates when
the machine is quiet; among other work the reference suffers as much as what it should correct, and minima win because
interference only adds. No way of condensing helps where nothing was undisturbed (3 processes): conditions say so, and
so does a warning.

Where the reference is not steady the rounds go on, and what is condensed are the samples of all. On a virtual machine
whose neighbours disturbed 37 of 52 passes over 23 networks of .2 to .35 ms, two passes differ by (90th percentile, per
cent), of the reference's minima where it is not steady, and of networks' minima alone:

    up to so many times 12 rounds                       1       2       3       5
    minimum / minimum of the reference                 13       6.1     4.0     3.2
    minimum                                            17       4.4     4.1     2.9

To take the steadiest of three passes instead is no better than one (18): 12 rounds can be slow as a whole, which only
what the reference took before can tell. To visit networks only while the reference runs fast, for twice the time, is
no better than to go on (4.5 beside 3.3 in 8 passes). The quotient keeps disturbed networks on the scale of the others:
a ridge regression of 250 networks, half of them disturbed, is off by .017 ms (mean), of minima where the reference is
not steady by .020, of minima everywhere by .029. So a `Measurement.value` is of lowest thirds where the reference is
steady and of minima where not, over those of the reference as soon as that was once steady.

Over 2,000 networks in 14 quiet minutes a ridge regression of the minima is off by 3.1 % of the mean, of the corrected
values by 1.2 %. Samples are stored, so that all of this can be done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sartor.core.method import steady
from sartor.targets.pack import Failed

Runnable: TypeAlias = Callable[[], object]
"""One inference, complete when it returns."""


@dataclass(frozen=True)
class Rounds:
    """How networks are timed.

    chunk: networks whose sessions live at one time (the reference comes on top); rounds: visits a network gets;
    visit_ms, visit_runs: a visit lasts at least that long and that many timed runs; warmup_ms: how long a network
    runs untimed before the rounds; longest: where the reference is not steady there are up to so many times as many
    rounds; drift: share by which the reference may move before it is warned about.
    """

    chunk: int = 24
    rounds: int = 12
    visit_ms: float = 15.0
    visit_runs: int = 3
    warmup_ms: float = 50.0
    longest: int = 5
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
    longest: int = 1,
    before: float = float("inf"),
) -> list[Timed]:
    """Sample every network once a round, in a new order each round, the reference in its place among them.

    As long as the reference is not steady as many rounds follow, up to `longest` times in all. before: its fastest
    among the networks timed last; rounds that a neighbour slows down evenly are not steady. Returns one result per
    entry of `runs`, in order. What a network raises is its failure, and the rest goes on.
    """
    everyone = [*runs, *([] if reference is None else [reference])]
    samples: list[list[float]] = [[] for _ in everyone]
    failed = {k: run for k, run in enumerate(everyone) if isinstance(run, Failed)}
    for done in range(rounds * longest):
        if done and done % rounds == 0 and (reference is None or len(runs) in failed or steady(samples[-1], before)):
            break
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
