"""Measuring: where measurements are kept, which networks to measure, and comparisons in one sitting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartor.choose.solve import land, reachable
from sartor.core import Architecture, Budget, F, Found, Score, SearchSpace, Target, UserError, metric
from sartor.spaces.unfolded import Unfolded
from sartor.spaces.windows import Windows
from sartor.targets.measure import measure

if TYPE_CHECKING:
    from sartor.targets.store import Store

_OF_A_SPACE = 16  # networks that are measured for it


def default_store() -> str:
    """Where measurements are kept: $SARTOR_STORE, or a file in the user's cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.get("SARTOR_STORE") or str(cache / "sartor" / "measurements.db")


@contextmanager
def opened(store: Store | str | None) -> Iterator[Store]:
    """A store from a path, a database URL, or the default one; an open one is left open."""
    from sartor.targets.store import Store

    if isinstance(store, Store):
        yield store
    else:
        with Store(store or default_store()) as found:
            yield found


def design(space: SearchSpace, samples: int, seed: int = 0) -> list[Architecture]:
    """Different architectures to fit a predictor on: uniform ones and wide ones in turn; more samples extend fewer."""
    if samples < 1:
        raise UserError(f"samples={samples} is too few; give a whole number from 1 up.")
    uniform, wide = (np.random.default_rng([seed, k]) for k in (0, 1))
    found: dict[Architecture, None] = {}
    if space.size <= 2 * samples:
        everything = list(space.enumerate())
        return [everything[i] for i in np.random.default_rng([seed, 2]).permutation(len(everything))[:samples]]
    while len(found) < samples:
        for rng, draw in ((uniform, space.sample), (wide, space.sample_wide)):
            found.update(dict.fromkeys(draw(rng, 1)))
    return list(found)[:samples]


def around(space: SearchSpace, score: Score, limit: float, samples: int, seed: int = 0) -> list[Architecture]:
    """Up to `samples` different architectures that a score puts at most 2 % below a limit: random ones that land.

    None where the score does not reach the limit, and fewer where there are few.
    """
    low, high = reachable(space, score)
    found: dict[Architecture, None] = {}
    if low <= limit <= high:
        rng, budget = np.random.default_rng([seed, 4]), Budget(score, limit, tolerance=0.02)
        for _ in range(samples):
            start = space.sample(rng, 1)[0]
            rewards = [rng.normal(size=len(slot)) for slot in space.slots]
            landed = land(space, rewards, [budget], start, rng=rng)
            if landed.status != "none_found":
                found[landed.architecture] = None
    return list(found)


class Measured(Score):
    """What a target says, asked when it is needed: all networks of a call are measured interleaved.

    Answers are those of the store where it has them, and NaN for failures.
    """

    def __init__(self, space: SearchSpace, target: Target, name: str, store: Store | str | None = None) -> None:
        if name not in target.metrics:
            raise UserError(f"{target.id} does not measure {name}; it measures {', '.join(sorted(target.metrics))}.")
        self.space, self.target, self.metric, self.store = space, target, metric(name), store
        self._known: dict[Architecture, float] = {}

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        wanted = self.space.canonicals(archs)
        new = [arch for arch in dict.fromkeys(wanted) if arch not in self._known]
        if new:
            with opened(self.store) as kept:
                found = measure(self.space, self.target, new, [self.metric.name], kept)
            self._known.update(zip(new, (one.value for one in found)))
        return np.array([self._known[arch] for arch in wanted])


def measure_parts(space: SearchSpace, target: Target, name: str, store: Store) -> dict[str, float]:
    """Cost of every part of a space, each measured alone: what a lookup table holds.

    Raises UserError for steps of training, which are of networks: parts without weights have none.
    """
    from sartor.spaces.parts import Parts
    from sartor.targets.local import STEP

    if name == STEP:
        raise UserError(f"lookup adds up parts, which have no {name} of their own; take another --predictor.")
    parts = Parts(space)
    archs = list(parts.enumerate())
    found = measure(parts, target, archs, [name], store)
    return {parts.slots[0].candidates[arch[0]]: one.value for arch, one in zip(archs, found)}


def remeasure(
    space: SearchSpace, target: Target, archs: Sequence[Architecture], names: Sequence[str], store: Store, sitting: str
) -> list[dict[str, float | None]]:
    """Fresh measurements in a sitting of their own: per architecture {metric: value, or None for a failure}."""
    wanted = [name for name in dict.fromkeys(names) if name in target.metrics]
    found = measure(space, target, archs, wanted, store, sitting=sitting) if wanted else []
    values = {(one.key, one.metric): one.value if one.error is None else None for one in found}
    return [{name: values[space.key(arch), name] for name in wanted} for arch in archs]


def remeasure_found(
    found: Found, budgets: Sequence[Budget], target: Target, names: Sequence[str], store: Store, sitting: str
) -> list[dict[str, float | None]]:
    """Fresh values of the winner and of the argmax.

    Of a space, that of 16 of its networks, spread evenly: where `budgets` predict the metric of networks, what is
    predicted for the space and by how much those 16 differ from what is predicted for them; else their mean. None where
    any of them failed.
    """
    both = [found.architecture, found.argmax.architecture]
    if not isinstance(found.space, Windows):
        return remeasure(found.space, target, both, names, store, sitting)
    members = [found.space.evenly(arch, _OF_A_SPACE) for arch in both]
    rows = remeasure(found.space.of, target, [arch for some in members for arch in some], names, store, sitting)
    scores = {b.score.metric.name: b.score for b in budgets}
    out: list[dict[str, float | None]] = []
    for some, measured, landed in zip(
        members, (rows[:_OF_A_SPACE], rows[_OF_A_SPACE:]), (found.winner, found.argmax), strict=True
    ):
        means: dict[str, float | None] = {}
        for name in measured[0]:
            values = np.array([row[name] for row in measured], dtype=np.float64)
            if name in scores:
                values = values - scores[name](some) + landed.predicted[name]
            means[name] = float(values.mean()) if np.isfinite(values).all() else None
        out.append(means)
    return out


def remeasure_unfolded(found: Found, target: Target, store: Store, sitting: str) -> dict[str, float | None]:
    """What `remeasure` says of the winner as it is trained, its batch norms not folded; nothing where none would be, or
    the target folds them itself."""
    if target.folds or isinstance(found.space, Windows) or type(found.space).deploy is SearchSpace.deploy:
        return {}
    return remeasure(Unfolded(found.space), target, [found.architecture], ["latency_ms"], store, sitting)[0]


def compare(
    members: Sequence[tuple[SearchSpace, Architecture]],
    target: Target,
    names: Sequence[str],
    store: Store,
    sitting: str,
) -> list[dict[str, float | None]]:
    """Measurements of networks of any spaces, taken in one sitting so that they can be compared."""
    from sartor.spaces.networks import Networks

    together = Networks(members)
    return remeasure(together, target, list(together.enumerate()), names, store, sitting)


def match_uniform(
    space: SearchSpace, arch: Architecture, target: Target, store: Store, sitting: str
) -> tuple[SearchSpace, Architecture]:
    """The MobileNetV2-like network of `space`'s make whose width comes nearest to the architecture's latency.

    All widths that differ are measured in one sitting with the architecture.
    """
    from sartor.spaces.uniform import Uniform

    options = {k: v for k, v in space.spec().items() if k not in ("space", "width", "resolution")}
    options["se"] = options["se"] is True  # a plain relative where the search could choose
    widths = [round(0.1 * 1.06**i, 3) for i in range(60)]
    scaled = Uniform(**options, widths=widths, resolutions=[space.spec()["resolution"]])
    different = list({scaled.key(a): a for a in scaled.enumerate()}.values())
    members = [(space, arch), *((scaled, a) for a in different)]
    found = [row["latency_ms"] for row in compare(members, target, ["latency_ms"], store, sitting)]
    wanted = found[0]
    usable = [(abs(ms - wanted), a) for a, ms in zip(different, found[1:]) if wanted is not None and ms is not None]
    if not usable:
        raise UserError("neither the network nor its scaled relatives could be measured; see sartor measure.")
    return scaled, min(usable)[1]
