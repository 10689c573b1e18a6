"""Modules as ONNX models: exported together, taken apart, joined into chains."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto


class _Bundle(nn.Module):
    """Independent modules side by side: the inputs of all, one after the other, to the outputs of all."""

    def __init__(self, modules: Sequence[nn.Module], counts: Sequence[int]) -> None:
        super().__init__()
        self.members, self.counts = nn.ModuleList(modules), tuple(counts)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs, first = [], 0
        for member, count in zip(self.members, self.counts):
            outputs.append(member(*inputs[first : first + count]))
            first += count
        return tuple(outputs)


def onnx_models(
    modules: Sequence[nn.Module], inputs: Sequence[tuple[Tensor, ...]], dynamic_batch: bool = False
) -> list[ModelProto]:
    """Each module (eval mode, one output tensor) as an ONNX model of its own, from a single export.

    inputs: example inputs of each module, batch first; they fix the shapes, except the batch if it is dynamic.
    An export costs 0.5 s before it sees the first node (it rebuilds its operator tables), a block 0.05 s: 32 blocks
    together take 2 s, one by one 16 s. Raises whatever the exporter raises; one bad module fails them all.
    """
    from onnx import ModelProto

    bundle = _Bundle(modules, [len(x) for x in inputs]).eval()
    flat = tuple(x.clone() for each in inputs for x in each)  # one tensor given twice would be taken for one input
    shapes: tuple[Any, ...] | None = None
    if dynamic_batch:  # an example batch of one would be taken for a constant
        flat = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in flat)
        shapes = (tuple({0: torch.export.Dim("batch")} for _ in flat),)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(bundle, flat, dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    whole: ModelProto = program.model_proto
    models, first = [], 0
    for number, each in enumerate(inputs):
        model = ModelProto()
        model.CopyFrom(_without_graph(whole))
        _extract(whole.graph, range(first, first + len(each)), number, model.graph)
        models.append(model)
        first += len(each)
    return models


def onnx_model(module: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool = False) -> ModelProto:
    """The module as an ONNX model with inputs `input0`, `input1` ... and output `output`."""
    return onnx_models([module], [inputs], dynamic_batch)[0]


def stitch(models: Sequence[ModelProto]) -> ModelProto:
    """One model of a chain of models: the output of each is the only input of the next.

    The result computes the same operations in the same order as an export of the whole chain.
    """
    from onnx import ModelProto

    whole = ModelProto()
    whole.CopyFrom(_without_graph(models[0]))
    whole.graph.name = "network"
    joint: str | None = None
    functions = {(f.domain, f.name) for f in whole.functions}
    for number, model in enumerate(models):
        if joint is not None and len(model.graph.input) != 1:
            raise ValueError(f"part {number} has {len(model.graph.input)} inputs; a chain passes on one")
        for function in model.functions:
            if (function.domain, function.name) not in functions:
                functions.add((function.domain, function.name))
                whole.functions.append(function)
        if [(o.domain, o.version) for o in model.opset_import] != [(o.domain, o.version) for o in whole.opset_import]:
            raise ValueError(f"part {number} was exported for other operator sets than the first")
        fixed = {value.name: joint or value.name for value in model.graph.input}
        if number == len(models) - 1:
            fixed.setdefault(model.graph.output[0].name, "output")
        graph, part = whole.graph, model.graph
        counts = len(graph.node), len(graph.initializer)
        graph.node.extend(part.node)
        graph.initializer.extend(part.initializer)
        if number == 0:
            graph.input.extend(part.input)

        def name_of(name: str, fixed: Mapping[str, str] = fixed, number: int = number) -> str:
            return fixed.get(name, f"{number}/{name}")

        _rename(graph.node[counts[0] :], graph.initializer[counts[1] :], name_of)
        joint = name_of(part.output[0].name)
    whole.graph.output.extend(models[-1].graph.output)
    whole.graph.output[0].name = joint or ""
    return whole


def _without_graph(model: ModelProto) -> ModelProto:
    from onnx import ModelProto

    head = ModelProto(ir_version=model.ir_version, producer_name="sartor")
    head.opset_import.extend(sorted(model.opset_import, key=lambda o: o.domain))
    head.functions.extend(model.functions)
    return head


def _extract(source: GraphProto, inputs: Iterable[int], output: int, target: GraphProto) -> None:
    """The nodes of `source` that one output needs, without the exporter's notes (they hold paths of this machine)."""
    made_by = {name: k for k, node in enumerate(source.node) for name in node.output}
    wanted, needed, names = [source.output[output].name], set(), set()
    while wanted:
        name = wanted.pop()
        names.add(name)
        if name in made_by and made_by[name] not in needed:
            needed.add(made_by[name])
            wanted.extend(_reads(source.node[made_by[name]]))
    target.name = "network"
    target.node.extend(source.node[k] for k in sorted(needed))
    target.initializer.extend(i for i in source.initializer if i.name in names)
    target.input.extend(source.input[k] for k in inputs)
    target.output.append(source.output[output])
    for item in (*target.node, *target.initializer, *target.input, *target.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    renamed = {value.name: f"input{k}" for k, value in enumerate(target.input)}
    renamed.setdefault(target.output[0].name, "output")
    values = [*target.initializer, *target.input, *target.output]
    _rename(target.node, values, lambda name: renamed.get(name, name))


def _reads(node: NodeProto) -> Iterator[str]:
    """Names a node reads, those of its inner graphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)


def _rename(
    nodes: Iterable[NodeProto], values: Iterable[TensorProto | ValueInfoProto], new: Callable[[str], str]
) -> None:
    """Rename values in place where they are made and read; the empty name means "not given" and stays."""
    for value in values:
        value.name = new(value.name)
    for node in nodes:
        node.name = new(node.name)
        node.input[:] = [new(name) if name else "" for name in node.input]
        node.output[:] = [new(name) if name else "" for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner.node, [*inner.initializer, *inner.input, *inner.output, *inner.value_info], new)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines from the exporter; what goes wrong is raised."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
