"""The honest protocol: networks visited in shuffled, interleaved rounds beside a reference. Knows callables only.

A sample is the fastest run of a visit. A network gets 12, one a round. Rounds go on, up to five times as many or 10
seconds, while the reference is not steady: its median not within 10 % of its minimum and of what it took in the chunk
before or, of the first, what the store says it once took, for rounds can be slow as a whole. Many networks share a
chunk, so that the visits of each are spread over more of what neighbours do. How far two passes over 96 networks of .4
to .6 ms differ, 90th percentile in per cent, on a virtual machine of two cores whose neighbours left 16 % of the
reference's samples within 10 % of its minimum (benchmarks/repeatability.py, 4 passes each in turn):

    networks a chunk                                 24       96
    minimum                                         4.0      2.4
    minimum / minimum of the reference              8.4     10
    mean of the lowest third                       16       14
    the same / that of the reference               14        9.5
    median / median of the reference               11       12

Minima win, because interference only adds, and the reference suffers as much as what it should correct. On a quiet
machine slow drift dominates, and dividing by the reference takes it out: two passes then differed by 8.8 % (minimum)
or 3.6 % (over that of the reference), and over 2,000 networks in 14 minutes a ridge regression of the minima was off
by 3.1 % of the mean, of corrected values by 1.2 % (no committed script). So a `Measurement.value` is a minimum, over
that of the reference where that is steady. Where nothing is undisturbed no way of condensing helps: conditions say so,
and so does a warning. Samples are stored, so that all of this can be done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sartor.core.method import steady
from sartor.core.progress import Progress
from sartor.targets.pack import Failed

Runnable: TypeAlias = Callable[[], object]
"""One inference, complete when it returns."""


@dataclass(frozen=True)
class Rounds:
    """How networks are timed.

    chunk, chunk_mb: networks whose sessions live at one time (the reference comes on top), and what their weights may
    take; rounds: visits a network gets; visit_ms, visit_runs: a visit lasts at least that long and that many timed
    runs; warmup_ms: how long a network runs untimed before the rounds; longest, patience_s: where the reference is not
    steady there are up to so many times as many rounds, and as many more as fit into so many seconds, for few networks
    are soon through; drift: share by which the reference may move before it is warned about.
    """

    chunk: int = 96
    chunk_mb: float = 512.0
    rounds: int = 12
    visit_ms: float = 15.0
    visit_runs: int = 3
    warmup_ms: float = 50.0
    longest: int = 5
    patience_s: float = 10.0
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
    patience_s: float = 0.0,
    before: float = float("inf"),
) -> list[Timed]:
    """Sample every network once a round, in a new order each round, the reference in its place among them.

    As long as the reference is not steady as many rounds follow, up to `longest` times in all or `patience_s` seconds,
    whichever is more. before: what it took earlier, at its fastest; rounds that a neighbour slows down evenly are not
    steady. Returns one result per entry of `runs`, in order. What a network raises is its failure, and the rest
    goes on.
    """
    everyone = [*runs, *([] if reference is None else [reference])]
    samples: list[list[float]] = [[] for _ in everyone]
    failed = {k: run for k, run in enumerate(everyone) if isinstance(run, Failed)}
    bar, began = Progress(f"rounds over {len(runs)} networks", rounds), time.monotonic()
    try:
        while bar.done < bar.total:
            for k in map(int, rng.permutation(len(everyone))):
                run = everyone[k]
                if k not in failed and not isinstance(run, Failed):
                    try:
                        samples[k].append(sample(run))
                    except Exception as error:
                        failed[k] = Failed.at("run", error)
            bar.advance()
            alone = reference is None or len(runs) in failed
            more = bar.done < rounds * longest or time.monotonic() - began < patience_s
            if bar.done == bar.total and more and not alone and not steady(samples[-1], before):
                bar.total += rounds
    finally:
        bar.close()
    beside = () if reference is None or len(runs) in failed else tuple(samples[-1])
    return [Timed(failed=failed[k]) if k in failed else Timed(tuple(samples[k]), beside) for k in range(len(runs))]


def drift(reference: Sequence[float]) -> float:
    """How far the reference moved, as a share: its first, middle and last rounds compared by their minima."""
    thirds = [float(third.min()) for third in np.array_split(np.asarray(reference), 3) if len(third)]
    return max(thirds) / min(thirds) - 1
