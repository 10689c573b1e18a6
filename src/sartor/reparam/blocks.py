"""What of a network can be grafted: its blocks found by tracing, and why the others are none.

A block is what could become one convolution if it were linear: convolutions in a row with activations between, a
shortcut around them or none. Modules are looked at from the outside in; a row of layers that is no module of its own,
as in VGG, is cut into blocks of up to three convolutions. A network is a chain of stages where only one map goes from
each to the next; a block has to be one of them.
"""

from __future__ import annotations

import operator
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from sartor.core import UserError
from sartor.reparam.border import PASSED_OVER
from sartor.reparam.merge import padding_of

MOST = 4  # convolutions of a block
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.Mish, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
_FUNCTIONS: dict[Any, type[nn.Module]] = {
    functional.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    functional.relu6: nn.ReLU6,
    functional.silu: nn.SiLU,
    functional.hardswish: nn.Hardswish,
    functional.gelu: nn.GELU,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
}
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_DROPS = ("dropout", "stochastic_depth")
_REASONS = {
    "mul": "maps are multiplied in it (squeeze-excite, or another gate)",
    "add": "maps are added in it",
    "cat": "maps are put one behind the other in it",
    "chunk": "maps are cut apart in it",
}


@dataclass(frozen=True)
class Block:
    """Layers of a network, not copies.

    chain: convolutions, batch norms and activations in a row; shortcut: the linear layers around them, none for an
    identity, None where there is no shortcut; after: activations behind the sum.
    """

    name: str
    chain: tuple[nn.Module, ...]
    shortcut: tuple[nn.Module, ...] | None
    after: tuple[nn.Module, ...]

    @property
    def gaps(self) -> tuple[int, ...]:
        """Where in the chain activations between two convolutions are."""
        convs = [i for i, layer in enumerate(self.chain) if isinstance(layer, nn.Conv2d)]
        return tuple(i for i in range(convs[0], convs[-1]) if isinstance(self.chain[i], ACTIVATIONS))


@dataclass(frozen=True)
class Anatomy:
    """A network as a chain. stages: blocks, and what is between them; refused: reasons by name of the module."""

    stages: tuple[Block | nn.Module, ...]
    refused: dict[str, str]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(stage for stage in self.stages if isinstance(stage, Block))


def anatomy(model: nn.Module) -> Anatomy:
    """The network's chain of stages. Raises UserError where it cannot be traced, or where nothing can be grafted."""
    known, refused = _search("", model)
    whole = {block.name: block for block in known}
    try:
        graph = _trace(model, frozenset(whole))
    except _Ungraftable as reason:
        raise UserError(f"{type(model).__name__} cannot be compressed: {reason}.") from None
    stages: list[tuple[str, Block | nn.Module]] = []
    for nodes in _cuts(graph):
        name = str(nodes[0].target) if len(nodes) == 1 and nodes[0].op == "call_module" else ""
        block = whole.get(name)
        stages.append((name, block or (model.get_submodule(name) if name else _cut_out(model, nodes))))
    staged = {name for name, _ in stages}
    refused |= {name: "other maps go past it to later layers" for name in whole if name not in staged}
    found = tuple(_rows(stages))
    runs = [stage.name for stage in found if isinstance(stage, Block)]
    refused = {k: v for k, v in refused.items() if not any(run.startswith(f"{k}." if k else "") for run in runs)}
    if not runs:
        raise UserError(f"nothing in {type(model).__name__} can be grafted: {_said(refused, type(model).__name__)}.")
    return Anatomy(found, refused)


def _said(refused: dict[str, str], model: str) -> str:
    """Each reason once, with where it is."""
    where: dict[str, list[str]] = {}
    for name, reason in refused.items():
        where.setdefault(reason, []).append(name or model)
    more = {reason: f" and {len(names) - 1} more" if len(names) > 1 else "" for reason, names in where.items()}
    said = (f"{names[0]}{more[reason]}: {reason}" for reason, names in where.items())
    return "; ".join(said) or "it has no convolutions"


# ---------------------------------------------------------------------- modules that are blocks


class _Ungraftable(Exception):
    pass


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.modules.conv._ConvNd) for layer in module.modules())


def _search(name: str, module: nn.Module) -> tuple[list[Block], dict[str, str]]:
    """Blocks in the module, and reasons for the outermost modules that are none and have none in them."""
    inner = {child: part for child, part in module.named_children() if _convolutions(part) > 1}
    reason = ""
    if len(inner) < 2 and _convolutions(module) > 1:
        try:
            return [_read(name, module)], {}
        except _Ungraftable as error:
            reason = str(error)
    blocks: list[Block] = []
    refused: dict[str, str] = {}
    for child, part in inner.items():
        some, reasons = _search(f"{name}.{child}".strip("."), part)
        blocks += some
        refused |= reasons
    return blocks, {name: reason} if reason and not blocks and len(refused) < 2 else refused


def _read(name: str, module: nn.Module) -> Block:
    """The module as a block; raises _Ungraftable."""
    graph = _trace(module)
    if len([node for node in graph.nodes if node.op == "placeholder" and node.users]) != 1:
        raise _Ungraftable("it has not one input")
    (end,) = (node for node in graph.nodes if node.op == "output")
    after: list[nn.Module] = []
    node = end.args[0]
    while (
        isinstance(node, fx.Node) and (layer := _layer(module, node)) and isinstance(layer, ACTIVATIONS + PASSED_OVER)
    ):
        after.insert(0, layer)
        (node,) = node.all_input_nodes
    if not isinstance(node, fx.Node):
        raise _Ungraftable("it has not one output")
    if node.target in _ADDITIONS and len(node.all_input_nodes) == 2:
        if node.kwargs.get("alpha", 1) != 1:
            raise _Ungraftable("maps are added in it with a factor")
        one, other = (_row(module, branch) for branch in node.all_input_nodes)
        chain, shortcut = sorted((one, other), key=lambda row: -_count(row))
        return _checked(name, chain, tuple(shortcut), after)
    return _checked(name, _row(module, node), None, after)


def _checked(
    name: str, chain: Sequence[nn.Module], shortcut: tuple[nn.Module, ...] | None, after: Sequence[nn.Module]
) -> Block:
    chain, after = _useful(chain), _useful(after)
    count = _count(chain)
    if count < 2:
        raise _Ungraftable("it has no two convolutions in a row")
    if count > MOST:
        raise _Ungraftable(f"it is a row of {count} convolutions")
    if shortcut is not None and (_count(shortcut) > 1 or any(isinstance(layer, ACTIVATIONS) for layer in shortcut)):
        raise _Ungraftable("both its branches have activations or several convolutions")
    block = Block(name, tuple(chain), None if shortcut is None else tuple(_useful(shortcut)), tuple(after))
    if not block.gaps:
        raise _Ungraftable("there is no activation between its convolutions")
    for layer in (*block.chain, *(block.shortcut or ())):
        if isinstance(layer, nn.Conv2d):
            try:
                padding_of(layer)
            except UserError:
                raise _Ungraftable(f"{layer} does not pad with as many zeros on both sides") from None
        if isinstance(layer, nn.BatchNorm2d) and not layer.track_running_stats:
            raise _Ungraftable("a batch norm keeps no running statistics")
    if block.shortcut is not None and any(_apart(*axis) for axis in zip(_views(block.chain), _views(block.shortcut))):
        raise _Ungraftable("its shortcut does not look at the same pixels as its convolutions")
    return block


def _views(layers: Sequence[nn.Module]) -> list[tuple[int, int, int]]:
    """Per axis (size, stride, padding) of all convolutions as one."""
    views = []
    for axis in (0, 1):
        size, stride, padding = 1, 1, 0
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                size += stride * layer.dilation[axis] * (layer.kernel_size[axis] - 1)
                padding += stride * padding_of(layer)[axis]
                stride *= layer.stride[axis]
        views.append((size, stride, padding))
    return views


def _apart(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether kernels cannot be added up, see `merge.side_by_side`."""
    return one[1] != other[1] or one[0] - other[0] != 2 * (one[2] - other[2])


def _useful(layers: Sequence[nn.Module]) -> list[nn.Module]:
    return [layer for layer in layers if not isinstance(layer, PASSED_OVER)]


def _count(layers: Sequence[nn.Module]) -> int:
    return sum(isinstance(layer, nn.Conv2d) for layer in layers)


def _row(module: nn.Module, node: fx.Node) -> list[nn.Module]:
    """Layers one after the other, up to this node, from the module's input."""
    layers: list[nn.Module] = []
    while node.op != "placeholder":
        layer = _layer(module, node)
        if layer is None:
            raise _Ungraftable(_why(module, node))
        if len(node.users) > 1:
            raise _Ungraftable("several layers use what is inside of it")
        layers.insert(0, layer)
        (node,) = node.all_input_nodes
    return layers


def _layer(module: nn.Module, node: fx.Node) -> nn.Module | None:
    """What a node does, if that is a convolution, a batch norm, an activation or nothing at all."""
    if len(node.all_input_nodes) != 1:
        return None
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return layer if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, *ACTIVATIONS, *PASSED_OVER)) else None
    if node.target in _FUNCTIONS:
        exact = node.kwargs.get("approximate", "none") == "none"
        return _FUNCTIONS[node.target]() if exact else None
    return nn.Identity() if getattr(node.target, "__name__", "") in _DROPS else None


def _why(module: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{type(module.get_submodule(str(node.target))).__name__} is in it"
    word = str(getattr(node.target, "__name__", node.target)).strip("_")
    return _REASONS.get(word, f"{word} is in it")


# ---------------------------------------------------------------------- the network as a chain


class _Tracer(fx.Tracer):
    def __init__(self, leaves: frozenset[str]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or module_qualified_name in self.leaves
        return known or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module, leaves: frozenset[str] = frozenset()) -> fx.Graph:
    try:
        return _Tracer(leaves).trace(module)
    except fx.proxy.TraceError as error:
        ours = str(Path(torch.__file__).parent), __file__
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
        where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
        raise _Ungraftable(
            f"what it does depends on the data or on shapes (dynamic control flow{where}); decide that in __init__"
        ) from None
    except Exception as error:  # whatever a module's own code makes of a symbol
        raise _Ungraftable(f"it cannot be traced ({str(error).splitlines()[0] if str(error) else error!r})") from None


def _cuts(graph: fx.Graph) -> Iterator[list[fx.Node]]:
    """Groups of nodes between which one value is handed on."""
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    place = {node: i for i, node in enumerate(nodes)}
    last = {node: max((place.get(user, len(nodes)) for user in node.users), default=-1) for node in graph.nodes}
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    if len(inputs) != 1:
        raise UserError(f"the network has {len(inputs)} inputs; only networks of one can be compressed.")
    group: list[fx.Node] = []
    for i, node in enumerate(nodes):
        group.append(node)
        alive = [other for other in (*inputs, *nodes[: i + 1]) if last[other] > i]
        if alive == [node]:
            yield group
            group = []


def _cut_out(model: nn.Module, nodes: Sequence[fx.Node]) -> nn.Module:
    """These nodes as a module of its own, which shares its layers with the model."""
    graph, inside = fx.Graph(), set(nodes)
    x = graph.placeholder("x")
    copies = {other: x for node in nodes for other in node.all_input_nodes if other not in inside}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda other: copies[other])
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(model, graph)


def _rows(stages: Sequence[tuple[str, Block | nn.Module]]) -> Iterator[Block | nn.Module]:
    """The stages, rows of single layers of one module made blocks of up to three convolutions where they can be."""
    row: list[tuple[str, nn.Module]] = []
    for name, stage in stages:
        single = bool(name) and isinstance(stage, (nn.Conv2d, nn.BatchNorm2d, *ACTIVATIONS))
        full = isinstance(stage, nn.Conv2d) and _count([layer for _, layer in row]) == MOST - 1
        if row and (not single or full or name.rpartition(".")[0] != row[0][0].rpartition(".")[0]):
            yield from _block(row)
            row = []
        if single and isinstance(stage, nn.Module):
            row.append((name, stage))
        else:
            yield stage
    yield from _block(row)


def _block(row: Sequence[tuple[str, nn.Module]]) -> list[Block | nn.Module]:
    layers = [layer for _, layer in row]
    convs = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    try:
        end = next((i for i in range(convs[-1], len(row)) if isinstance(layers[i], ACTIVATIONS)), len(row))
        name = f"{row[convs[0]][0]}-{row[convs[-1]][0].rpartition('.')[2]}"
        block = _checked(name, layers[convs[0] : end], None, layers[end : end + 1])
    except (_Ungraftable, IndexError):
        return list(layers)
    return [*layers[: convs[0]], block, *layers[end + 1 :]]
