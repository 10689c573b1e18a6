"""Widening a network for as long as the device does not notice: the Comfort Zone (thesis 3.3.6, Fig. 3.10, 3.11).

The text says to raise the factor until latency rises. A measurement is never exactly equal to another, so "rises" needs
a tolerance: a share of the latency, 2 % unless given, or twice the spread of the network's own samples where that is
more, but then 3 % at most, which is what counts as equal latency everywhere here: on a shared machine samples spread by
up to 20 %, and widths that cost 19 % more would have passed (`benchmarks/comfort_zone.py`). Latency counts against the
unscaled network in the same sitting, not against one of an hour ago.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from sartor.core import Architecture, Json, Measurement, SearchSpace, Target, UserError
from sartor.spaces.complexity import Complexity
from sartor.spaces.networks import Networks
from sartor.targets.measure import measure
from sartor.targets.store import Store

TOGETHER = 4  # factors measured beside the unscaled network in one sitting
EQUAL = 0.03  # the most that noise may add to what counts as equal
logger = logging.getLogger("sartor")


@dataclass(frozen=True)
class Step:
    """One factor. ratio: latency over that of the unscaled network beside it; allowed: the most that counts as equal;
    intensity: multiply-accumulates per byte of memory traffic at batch 1 (Eq. 3.19, which has elements for bytes)."""

    factor: float
    latency_ms: float
    ratio: float
    allowed: float
    macs: float
    params: float
    intensity: float

    @property
    def inside(self) -> bool:
        return self.ratio <= self.allowed


@dataclass(frozen=True)
class Zone:
    """The widest network that costs no more, and every step that was measured, some of them outside."""

    factor: float
    space: SearchSpace
    steps: tuple[Step, ...]

    def describe(self) -> dict[str, Json]:
        return {"factor": self.factor, "steps": [{**asdict(s), "inside": s.inside} for s in self.steps]}


def comfort_zone(
    space: SearchSpace,
    arch: Architecture,
    target: Target,
    store: Store,
    *,
    step: float = 0.1,
    most: float = 4.0,
    tolerance: float = 0.02,
    sitting: str = "scale",
) -> Zone:
    """Raise the width of a network by `step` until its latency leaves the tolerance, at most to `most`.

    Widths that rounding makes equal are one. Raises UserError for a space that has no width, steps that lead nowhere,
    and a network that cannot be measured.
    """
    if not (0 < step < float("inf") and most > 1 and 0 <= tolerance < 1):
        raise UserError(
            f"step={step:g}, most={most:g}, tolerance={tolerance:g} is not possible; give a step above 0, most above 1 "
            "and a tolerance from 0 to below 1."
        )
    steps: list[Step] = []
    for together in _measured(space, arch, target, store, step, most, tolerance, sitting):
        steps += together
        if not all(found.inside for found in together):
            break
    inside = list(itertools.takewhile(lambda found: found.inside, steps))
    accepted = inside[-1].factor
    if accepted == 1.0:
        logger.info("no Comfort Zone here: the network costs more as soon as it is wider; the factor stays 1.0")
    return Zone(accepted, space if accepted == 1.0 else space.scaled(accepted), tuple(steps))


def _measured(
    space: SearchSpace,
    arch: Architecture,
    target: Target,
    store: Store,
    step: float,
    most: float,
    tolerance: float,
    sitting: str,
) -> Iterator[list[Step]]:
    """Steps in rising order, those measured together; the first of all is the network itself."""
    factors, keys = [], {space.key(arch)}
    for i in range(1, int((most - 1) / step + 1e-9) + 1):
        factor = round(1 + i * step, 6)
        key = space.scaled(factor).key(arch)
        if key not in keys:
            keys.add(key)
            factors.append(factor)
    if not factors:
        raise UserError(f"no factor up to {most:g} changes a width; give a larger --most.")
    for first in range(0, len(factors), TOGETHER):
        group = [1.0, *factors[first : first + TOGETHER]]
        spaces = [space if f == 1.0 else space.scaled(f) for f in group]
        together = Networks([(s, arch) for s in spaces])
        rows = measure(
            together, target, list(together.enumerate()), ["latency_ms"], store, sitting=f"{sitting} {first}"
        )
        if rows[0].error is not None:
            raise UserError(f"the network cannot be measured on {target.id} ({rows[0].error}); give another target.")
        last = next((i for i, row in enumerate(rows) if row.error is not None), len(rows))
        base, allowed = rows[0].value, 1 + max(tolerance, min(2 * _noise(rows[0]), EQUAL))
        found = [
            _step(s, arch, f, row.value, row.value / base, allowed) for f, s, row in zip(group, spaces, rows[:last])
        ]
        yield found if first == 0 else found[1:]
        if last < len(rows):
            logger.warning("the network scaled by %g cannot be measured (%s): no wider", group[last], rows[last].error)
            return


def _noise(one: Measurement) -> float:
    """Median absolute deviation of the samples over their median."""
    samples = np.asarray(one.samples)
    return float(np.median(np.abs(samples - np.median(samples))) / np.median(samples))


def _step(space: SearchSpace, arch: Architecture, factor: float, ms: float, ratio: float, allowed: float) -> Step:
    macs, params, traffic = (float(Complexity(space, n)([arch])[0]) for n in ("macs", "params", "mem_access_bytes"))
    return Step(factor, ms, ratio, allowed, macs, params, macs / traffic)
