"""What every target on this machine shares: chunks, the reference network, metrics, failures as measurements."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from sartor.core import Architecture, SearchSpace
from sartor.core.errors import UserError, unknown
from sartor.core.method import Measurement
from sartor.targets import conditions, energy
from sartor.targets.pack import Failed, Packed, pack_step
from sartor.targets.timing import Rounds, Runnable, Timed, drift, interleave, visit

logger = logging.getLogger("sartor")
PACKED = 24
"""Networks packed together."""
PROFILED = 30
"""Inferences that a profile is the median of."""
Pack: TypeAlias = Callable[[SearchSpace, Sequence[Architecture]], Sequence[Packed | Failed]]
STEP = "training_step_ms"
TIMED = ("latency_ms", STEP)
ENERGY_ROUNDS = 3
"""Visits, of at least a second each, that a network gets for its energy."""


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of what each run says by kind; one that was interrupted does not count for more than the others."""
    return {kind: median(run.get(kind, 0.0) for run in runs) for kind in dict.fromkeys(k for run in runs for k in run)}


@dataclass(frozen=True)
class LocalTarget(ABC):
    """A runtime on this machine. threads: of one inference; batch: examples an inference; precision: of weights
    and activations; protocol: how networks are timed."""

    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    protocol: Rounds = field(default_factory=Rounds)

    # ------------------------------------------------------------------ what a runtime defines

    @property
    @abstractmethod
    def hardware(self) -> str:
        """Model of the processor or accelerator."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Runtime, version and device: `onnxruntime 1.20.1 cpu`."""

    @property
    @abstractmethod
    def weighs(self) -> bool:
        """Whether peak memory can be measured here."""

    @property
    @abstractmethod
    def trains(self) -> bool:
        """Whether steps of training can be timed here; `load` then takes what `pack_step` packs."""

    @property
    @abstractmethod
    def folds(self) -> bool:
        """Whether batch norms are folded on the way to the runtime, whatever `pack` is given."""

    @property
    @abstractmethod
    def counters(self) -> Sequence[energy.Counter]:
        """Energy counters that cover this device, best first."""

    @abstractmethod
    def pack(self, space: SearchSpace, archs: Sequence[Architecture]) -> list[Packed | Failed]:
        """Each network in the form that `load` takes."""

    @abstractmethod
    def load(self, packed: Packed) -> Runnable:
        """A live session: call it for one complete inference, or step of training."""

    @abstractmethod
    def settings(self) -> AbstractContextManager[dict[str, Any]]:
        """Set what the runtime keeps per process (threads), restore it afterwards; yields what is worth recording."""

    @abstractmethod
    def peak_memory_mb(self, packed: Packed) -> float:
        """Peak memory that loading and running one network adds, in MB (1e6 bytes)."""

    @abstractmethod
    def by_kind(self, packed: Packed, runs: int) -> dict[str, float]:
        """Milliseconds of one inference that kinds of layers take, as the runtime calls them; medians of `runs`."""

    @abstractmethod
    def start(self) -> None:
        """Load and run something trivial, so that the runtime's own memory is in place."""

    # ------------------------------------------------------------------ the target

    @property
    def id(self) -> str:
        """`MODEL; RUNTIME VERSION DEVICE; threads 1; batch 1; fp32`."""
        return f"{self.hardware}; {self.runtime}; threads {self.threads}; batch {self.batch}; {self.precision}"

    @property
    def metrics(self) -> frozenset[str]:
        can = {
            "latency_ms": True,
            STEP: self.trains,
            "peak_memory_mb": self.weighs,
            "energy_mj": bool(self.counters),
        }
        return frozenset(name for name, possible in can.items() if possible)

    def measure(
        self,
        space: SearchSpace,
        archs: Sequence[Sequence[int]],
        metrics: Sequence[str],
        known: Mapping[str, float] = MappingProxyType({}),
    ) -> Iterator[Measurement]:
        """One measurement per architecture and metric, a chunk at a time. Raises UserError for metrics it lacks."""
        for name in metrics:
            if name == "energy_mj" and not self.counters:
                raise UserError(f"{self.runtime} cannot measure energy_mj here: {energy.LOOKED_FOR}")
            if name == STEP and self.batch == 1:
                raise UserError(
                    f"{STEP} is of batches, batch is 1; give a target of PyTorch such as torch:cpu?batch=64."
                )
            if name not in self.metrics:
                raise unknown(f"metric of {self.runtime}:", name, self.metrics)
        return self._measure(space, [space.canonical(arch) for arch in archs], metrics, known)

    def profile(self, space: SearchSpace, arch: Sequence[int], runs: int = PROFILED) -> dict[str, float]:
        """Milliseconds of one inference by kind of layer, most first; watching them makes the sum more than a latency.

        Raises UserError where the network does not run.
        """
        packed = self.pack(space, [space.canonical(arch)])[0]
        spent: dict[str, float] | Failed = packed if isinstance(packed, Failed) else {}
        if isinstance(packed, Packed):
            try:
                with self.settings():
                    spent = self.by_kind(packed, runs)
            except Exception as error:
                spent = Failed.at("run", error)
        if isinstance(spent, Failed):
            raise UserError(f"the network cannot be profiled on {self.id} ({spent.error}); see `sartor measure`.")
        return dict(sorted(spent.items(), key=lambda item: -item[1]))

    def _measure(
        self, space: SearchSpace, archs: Sequence[Architecture], metrics: Sequence[str], known: Mapping[str, float]
    ) -> Iterator[Measurement]:
        conditions.warn(conditions.conditions(), self.threads)
        for pack in (self.pack, self._steps):
            names = [name for name in metrics if (name == STEP) == (pack == self._steps)]
            if archs and names:
                yield from self._packed(space, archs, names, known, pack)

    def _steps(self, space: SearchSpace, archs: Sequence[Architecture]) -> list[Packed | Failed]:
        return [pack_step(space, arch, self.batch) for arch in archs]

    def _packed(
        self,
        space: SearchSpace,
        archs: Sequence[Architecture],
        metrics: Sequence[str],
        known: Mapping[str, float],
        pack: Pack,
    ) -> Iterator[Measurement]:
        with self.settings():
            reference, beside = self._reference(space, pack)
        watch = _Watch(self.protocol.drift)
        before = dict.fromkeys(metrics, known.get(beside.get("reference_network", ""), float("inf")))
        for chunk, packed in self._chunks(space, archs, pack):
            keys = [space.key(arch) for arch in chunk]
            for name in metrics:
                with self.settings() as settings:
                    now = {**conditions.conditions(), **settings, **beside}
                    timed, how = self._chunk(name, packed, reference, keys, before[name])
                before[name] = min((min(one.reference) for one in timed if one.reference), default=before[name])
                now |= how | watch(name, timed)
                for key, arch, one in zip(keys, chunk, timed):
                    failure = {} if one.failed is None else {"stage": one.failed.stage}
                    error = None if one.failed is None else one.failed.error
                    yield Measurement(key, arch, name, one.samples, one.reference, now | failure, error)

    def _chunks(
        self, space: SearchSpace, archs: Sequence[Architecture], pack: Pack
    ) -> Iterator[tuple[list[Architecture], list[Packed | Failed]]]:
        """As many networks at a time as the protocol's number and weights allow."""
        chunk: list[Architecture] = []
        packed: list[Packed | Failed] = []
        weights = 0.0
        for start in range(0, len(archs), PACKED):
            some = archs[start : start + PACKED]
            for arch, one in zip(some, pack(space, some)):
                more = one.megabytes if isinstance(one, Packed) else 0.0
                if chunk and (len(chunk) == self.protocol.chunk or weights + more > self.protocol.chunk_mb):
                    yield chunk, packed
                    chunk, packed, weights = [], [], 0.0
                chunk.append(arch)
                packed.append(one)
                weights += more
        if chunk:
            yield chunk, packed

    def _reference(self, space: SearchSpace, pack: Pack) -> tuple[Packed | None, dict[str, str]]:
        """The same network for every chunk, and which: the first of the space's references that runs."""
        for owner, arch in space.references():
            packed = pack(owner, [arch])[0]
            if isinstance(packed, Packed) and not isinstance(self._live(packed), Failed):
                return packed, {"reference_network": owner.key(arch)}
        logger.warning("no reference network of space %r runs: drift cannot be seen", space.name)
        return None, {}

    def _chunk(
        self,
        name: str,
        packed: Sequence[Packed | Failed],
        reference: Packed | None,
        keys: Sequence[str],
        before: float,
    ) -> tuple[list[Timed], dict[str, Any]]:
        """Results of one metric, and how they came about; before: what the reference took earlier."""
        if name == "peak_memory_mb":
            return [self._weigh(one) for one in packed], {}
        rounds, sample, how = self._protocol(name)
        runs = [one if isinstance(one, Failed) else self._live(one) for one in packed]
        beside = None if reference is None else self._live(reference)
        seed = hashlib.sha256(json.dumps([name, *keys]).encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        more = (self.protocol.longest, self.protocol.patience_s) if name in TIMED else (1, 0.0)
        own = None if isinstance(beside, Failed) else beside
        return interleave(runs, own, sample, rounds, rng, *more, before), how

    def _protocol(self, name: str) -> tuple[int, Callable[[Runnable], float], dict[str, Any]]:
        """Rounds, what takes a sample, and a description for the conditions."""
        if name in TIMED:
            p = self.protocol if name != STEP else replace(self.protocol, visit_runs=1)  # steps take long
            return p.rounds, lambda run: visit(run, p.visit_ms, p.visit_runs), {"protocol": asdict(p)}
        counter = self.counters[0]
        how = {"counter": counter.name, "window_s": energy.WINDOW_S, "idle_power": "included"}
        return ENERGY_ROUNDS, lambda run: energy.per_run_mj(counter, run, energy.WINDOW_S), how

    def _live(self, packed: Packed) -> Runnable | Failed:
        """Loaded and warmed up."""
        try:
            run = self.load(packed)
        except Exception as error:
            return Failed.at("load", error)
        try:
            visit(run, self.protocol.warmup_ms, self.protocol.visit_runs)
        except Exception as error:
            return Failed.at("run", error)
        return run

    def _weigh(self, packed: Packed | Failed) -> Timed:
        if isinstance(packed, Failed):
            return Timed(failed=packed)
        try:
            return Timed((self.peak_memory_mb(packed),))
        except Exception as error:
            return Timed(failed=Failed.at("run", error))


class _Watch:
    """Compares the reference with itself, within a chunk and with the first chunk, and warns."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._first: dict[str, float] = {}

    def __call__(self, name: str, timed: Sequence[Timed]) -> dict[str, float]:
        """Drift within the chunk and since the first one, as shares, for the conditions."""
        reference = next((one.reference for one in timed if one.reference), ())
        if not reference or min(reference) <= 0:  # a counter too coarse for its window counts nothing
            return {}
        began = self._first.setdefault(name, min(reference))
        found = {"drift": round(drift(reference), 4), "drift_since_start": round(min(reference) / began - 1, 4)}
        if max(map(abs, found.values())) > self.limit:
            logger.warning(
                "the reference network's %s moved by %.0f %% within a chunk, %+.0f %% since the start: "
                "the machine is not steady",
                name,
                100 * found["drift"],
                100 * found["drift_since_start"],
            )
        return found


def checked(threads: object, batch: object, precision: object, precisions: Sequence[str]) -> dict[str, Any]:
    """The common options of a target. Raises UserError for values out of range."""
    for name, value in (("threads", threads), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name}={value} is not possible; give a whole number from 1 up, such as {name}=1.")
    if threads > conditions.cores():  # type: ignore[operator]
        raise UserError(
            f"threads={threads} is more than the {conditions.cores()} cores this process may use; give fewer."
        )
    if precision not in precisions:
        raise unknown("precision", str(precision), precisions)
    return {"threads": threads, "batch": batch, "precision": precision}
