"""Files for use without sartor, each verified against its source through its own runtime."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import Json
from sartor.core.errors import UserError, unknown
from sartor.export.graphs import onnx_model, quiet
from sartor.export.quantise import quantised
from sartor.runs import write_json

FORMATS = ("onnx", "pt2", "safetensors")
EIGHT = "int8"
RELATIVE, ABSOLUTE = 1e-3, 1e-9
"""Agreement asked of every format: max |a - b| <= RELATIVE * max |a| + ABSOLUTE. Runtimes reorder float32 sums;
the outputs of a network with fresh weights are small, so that little is allowed absolutely."""


def export(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    directory: Path | str,
    formats: Sequence[str] = FORMATS,
    describe: Mapping[str, Json] | None = None,
    examples: Sequence[tuple[Tensor, ...]] = (),
) -> dict[str, dict[str, Json]]:
    """Write a deployed network (eval mode, one output tensor) in formats that need no sartor to be loaded.

    `onnx`: network.onnx; `pt2`: network.pt2 (torch.export); `safetensors`: network.safetensors, the state dictionary;
    `int8`: network.int8.onnx, quantised with ranges from `examples`, inputs of the same shapes. network.json holds
    `describe` (architecture, space, how pixels become inputs), the shapes of inputs and output, and the files. inputs:
    example inputs, batch first; shapes are fixed to theirs. Every file is loaded by its own runtime and compared with
    `network` on `inputs` before it gets its name; of int8 no agreement is asked.
    Returns {format: {path, bytes, max_abs_error}}. Raises UserError for an unknown format, a network that cannot be
    exported, or a file that disagrees; in that case the directory is as it was before.
    """
    for name in formats:
        if name not in (*FORMATS, EIGHT):
            raise unknown("export format", name, (*FORMATS, EIGHT))
    if EIGHT in formats and not examples:
        raise UserError("int8 needs examples of inputs to calibrate ranges with; give some.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    network = copy.deepcopy(network).cpu().eval()
    with torch.inference_mode():
        expected = network(*inputs)
    written: dict[str, dict[str, Json]] = {}
    graph, new = _Graph(network, inputs, examples), directory / f".export.{os.getpid()}"
    new.mkdir(exist_ok=True)
    try:
        for name in formats:
            file = new / f"network.{'int8.onnx' if name == EIGHT else name}"
            try:
                got = _WRITERS[name](network, inputs, file) if name in _WRITERS else graph.write(name, file)
            except Exception as error:
                first = str(error).strip().partition("\n")[0][:200]
                raise UserError(
                    f"the network cannot be exported as {name} ({first}); leave {name} out of the formats."
                ) from error
            path, size = str(directory / file.name), file.stat().st_size
            written[name] = {"path": path, "bytes": size, "max_abs_error": _compare(name, expected, got)}
        shapes = {"inputs": [list(x.shape) for x in inputs], "output": list(expected.shape)}
        files = {name: {**facts, "path": Path(facts["path"]).name} for name, facts in written.items()}
        write_json(new / "network.json", {**(describe or {}), **shapes, "files": files})
        for file in sorted(new.iterdir()):
            os.replace(file, directory / file.name)
    finally:
        shutil.rmtree(new)
    return written


def run_file(file: Path | str) -> Callable[..., Tensor]:
    """What an ONNX file of a batch of one computes, of batches of any size."""
    session = _session(Path(file))

    def run(*inputs: Tensor) -> Tensor:
        device, rows = inputs[0].device, zip(*(x.cpu().numpy() for x in inputs))
        outputs = [session.run(["output"], {f"input{k}": x[None] for k, x in enumerate(row)})[0] for row in rows]
        return torch.cat([torch.from_numpy(output) for output in outputs]).to(device)

    return run


def _session(file: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def _compare(name: str, expected: Tensor, got: Tensor) -> float:
    """Largest absolute difference. Raises UserError where it is more than RELATIVE and ABSOLUTE allow."""
    same_shape = got.shape == expected.shape
    error = float((got - expected).abs().max()) if same_shape else float("nan")
    allowed = math.inf if name == EIGHT else RELATIVE * float(expected.abs().max()) + ABSOLUTE
    if not error <= allowed:  # NaN is a disagreement too
        detail = f"differs by {error:.3g}, {allowed:.3g} is allowed" if same_shape else "has another shape"
        raise UserError(f"the output of the {name} export {detail}; leave {name} out of the formats and report it.")
    return error


class _Graph:
    """ONNX of a network, exported once however many files are made of it."""

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], examples: Sequence[tuple[Tensor, ...]]) -> None:
        self.network, self.inputs, self.examples = network, inputs, examples

    @cached_property
    def model(self) -> bytes:
        written: bytes = onnx_model(self.network, self.inputs).SerializeToString()
        return written

    def write(self, name: str, file: Path) -> Tensor:
        from onnx import load_model_from_string

        eight = quantised(load_model_from_string(self.model), self.examples) if name == EIGHT else None
        file.write_bytes(self.model if eight is None else eight.SerializeToString())
        fed = {f"input{k}": x.numpy() for k, x in enumerate(self.inputs)}
        return torch.from_numpy(_session(file).run(["output"], fed)[0])


def _write_pt2(network: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> Tensor:
    with quiet():
        program = torch.export.export(network, inputs)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # holds paths of this machine
        torch.export.save(program, file)
        got: Tensor = torch.export.load(file).module()(*inputs)
    return got.detach()


def _write_safetensors(network: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> Tensor:
    from safetensors.torch import load_file, save

    file.write_bytes(save({name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}))
    rebuilt = copy.deepcopy(network)
    for tensor in rebuilt.state_dict().values():
        tensor.zero_()
    rebuilt.load_state_dict(load_file(file))
    with torch.inference_mode():
        got: Tensor = rebuilt(*inputs)
    return got


_WRITERS = {"pt2": _write_pt2, "safetensors": _write_safetensors}
