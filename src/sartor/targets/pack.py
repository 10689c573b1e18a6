"""From an architecture to something a runtime can load. Nothing here is timed; timing may happen on another machine."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sartor.core import Architecture, Part, SearchSpace
from sartor.core.errors import UserError
from sartor.runs import write_atomic

if TYPE_CHECKING:
    from onnx import ModelProto

BUNDLE = 32
"""Parts exported together; more share the exporter's fixed cost further, but a failure costs as many single exports."""
CACHE_BYTES = 2 << 30
"""Exported parts kept in memory, least recently used dropped first."""


@dataclass(frozen=True)
class Packed:
    """A network ready to load. model: ONNX bytes, the deployed module, or one in training mode, which runs by steps of
    training; inputs: example inputs, batch first."""

    model: bytes | nn.Module
    inputs: tuple[Tensor, ...]

    @property
    def megabytes(self) -> float:
        """What the weights take."""
        if isinstance(self.model, bytes):
            return len(self.model) / 1e6
        return sum(one.numel() * one.element_size() for one in self.model.parameters()) / 1e6


@dataclass(frozen=True)
class Failed:
    """Why there is no number. stage: `build` (deterministic: asking again gives the same), `load` or `run`."""

    stage: str
    error: str

    @classmethod
    def at(cls, stage: str, error: BaseException) -> Failed:
        """The failure an exception stands for: type and first line of the message of what caused it first."""
        while error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, MemoryError):
            stage = "run"  # of the moment, wherever it happened
        first = str(error).strip().partition("\n")[0][:300]
        return cls(stage, f"{type(error).__name__}: {first}" if first else type(error).__name__)


def pack_module(space: SearchSpace, arch: Architecture, batch: int) -> Packed | Failed:
    """The deployed network itself, with fresh weights."""
    try:
        with seeded(space.key(arch)):
            return Packed(_as_trained(space.deploy(space.network(arch))), space.inputs(batch, arch))
    except Exception as error:
        return Failed.at("build", error)


def pack_step(space: SearchSpace, arch: Architecture, batch: int) -> Packed | Failed:
    """The network as it is trained, with fresh weights."""
    try:
        with seeded(space.key(arch)):
            return Packed(space.network(arch).train(), space.inputs(batch, arch))
    except Exception as error:
        return Failed.at("build", error)


def pack_onnx(
    space: SearchSpace, archs: Sequence[Architecture], batch: int, cache: Path | None = None, precision: str = "fp32"
) -> list[Packed | Failed]:
    """Each network as ONNX bytes, with fresh weights; of precision `int8` quantised (`export.quantised`).

    Networks that are chains of parts are stitched from parts, each exported once in the life of the process, or,
    with a `cache` directory, once for all processes with the same versions of torch and sartor. Others are exported
    whole, which takes seconds each.
    """
    fed = []
    for arch in archs:
        with seeded("inputs"):
            fed.append(space.inputs(batch, arch))
    chains = [_examples(space.parts(arch), inputs) for arch, inputs in zip(archs, fed)]
    exported = _export_parts(space, [chain for chain in chains if chain], cache, precision)
    return [
        _stitched(chain, exported, inputs) if chain else _whole(space, arch, inputs, precision)
        for arch, chain, inputs in zip(archs, chains, fed)
    ]


def _whole(space: SearchSpace, arch: Architecture, inputs: tuple[Tensor, ...], precision: str) -> Packed | Failed:
    from sartor.export import onnx_model

    packed = pack_module(space, arch, inputs[0].shape[0])
    if isinstance(packed, Failed):
        return packed
    assert isinstance(packed.model, nn.Module)
    try:
        model = onnx_model(packed.model, inputs)
        return Packed(_of(precision, model, part=False).SerializeToString(), inputs)
    except Exception as error:
        return Failed.at("build", error)


def _of(precision: str, model: ModelProto, part: bool) -> ModelProto:
    from sartor.export import quantised

    return quantised(model, part=part) if precision == "int8" else model


# ---------------------------------------------------------------------- parts

Piece = tuple[str, Part, tuple[Tensor, ...]]
"""Identity of an exported part (key, shapes and types of its inputs), the part, its example inputs (without data
except for the first part: most pieces are in the cache already)."""


def _examples(chain: Sequence[Part] | None, inputs: tuple[Tensor, ...]) -> list[Piece]:
    pieces, batch = [], inputs[0].shape[0]
    for k, part in enumerate(chain or ()):
        given = inputs if k == 0 else tuple(torch.empty(batch, *shape, device="meta") for shape in part.inputs)
        pieces.append((f"{part.key} {[(tuple(x.shape), str(x.dtype)) for x in given]}", part, given))
    return pieces


def _export_parts(
    space: SearchSpace, chains: Sequence[Sequence[Piece]], cache: Path | None, precision: str
) -> dict[str, ModelProto | Failed]:
    """Every different part of the chains, exported; those not yet known in bundles."""
    pieces = {name: (name, part, given) for chain in chains for name, part, given in chain}
    done: dict[str, ModelProto | Failed] = {}
    for name in pieces:
        found = _CACHE.get(f"{name} {precision}", cache)
        if found is not None:
            done[name] = found
    missing = [piece for name, piece in pieces.items() if name not in done]
    for first in range(0, len(missing), BUNDLE):
        done.update(_export(space, missing[first : first + BUNDLE], precision))
    for name, _, _ in missing:
        result = done[name]
        if not isinstance(result, Failed) or result.stage == "build":
            _CACHE.put(f"{name} {precision}", result, cache)
    return done


def _export(space: SearchSpace, pieces: Sequence[Piece], precision: str) -> dict[str, ModelProto | Failed]:
    from sartor.export import onnx_models

    try:
        modules = []
        for _, part, _ in pieces:
            with seeded(part.key):
                modules.append(_as_trained(space.deploy(part.make())))
        with seeded("inputs"):
            models = onnx_models(modules, [_with_data(given) for _, _, given in pieces])
        models = [_of(precision, model, part=True) for model in models]
    except Exception as error:
        if len(pieces) == 1:
            return {pieces[0][0]: Failed.at("build", error)}
        return {name: result for piece in pieces for name, result in _export(space, [piece], precision).items()}
    return {name: model for (name, _, _), model in zip(pieces, models)}


def _with_data(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(x.shape) if x.is_meta else x for x in given)


def _stitched(
    chain: Sequence[Piece], exported: dict[str, ModelProto | Failed], inputs: tuple[Tensor, ...]
) -> Packed | Failed:
    from sartor.export import stitch

    models: list[Any] = [exported[name] for name, _, _ in chain]
    for model in models:
        if isinstance(model, Failed):
            return model
    try:
        return Packed(stitch(models).SerializeToString(), inputs)
    except Exception as error:
        return Failed.at("build", error)


class _Cache:
    """Exported parts: in memory up to CACHE_BYTES, and in a directory when one is given. Failures stay in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[ModelProto | Failed, int]] = OrderedDict()
        self._bytes = 0

    def get(self, name: str, directory: Path | None) -> ModelProto | Failed | None:
        from onnx import load_model_from_string

        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name][0]
        file = self._file(name, directory)
        if file is None or not file.exists():
            return None
        model = load_model_from_string(file.read_bytes())
        self.put(name, model, None)
        return model

    def put(self, name: str, model: ModelProto | Failed, directory: Path | None) -> None:
        size = 0 if isinstance(model, Failed) else model.ByteSize()
        self._kept[name], self._bytes = (model, size), self._bytes + size
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        file = self._file(name, directory)
        if file is not None and not isinstance(model, Failed):
            write_atomic(file, model.SerializeToString())

    def _file(self, name: str, directory: Path | None) -> Path | None:
        identity = f"{name} torch {torch.__version__} sartor {version('sartor')}"
        return directory and directory / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.onnx"


_CACHE = _Cache()

# ---------------------------------------------------------------------- weights


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """The same random weights and inputs for the same name in every process; the caller's stream is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1)
        yield


def _as_trained(module: nn.Module) -> nn.Module:
    """Random values for parameters that are all zero: fresh batch norms fold into zero biases, which an exporter
    drops, so that the network measured would do less than the one trained."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.01)
    return module


def cache_directory(given: object) -> Path | None:
    """The `cache` option of a target. Raises UserError when it is not a directory's name."""
    if given is None:
        return None
    path = Path(str(given))
    if path.exists() and not path.is_dir():
        raise UserError(f"cache={given} is a file; give a directory for exported parts.")
    return path
