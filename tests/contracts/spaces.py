"""What every search space must satisfy: `check_space(space)`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import Path, SearchSpace, SoftScore, UserError
from sartor.core.restricted import Restricted
from sartor.spaces.complexity import COUNTED, Complexity, count_part

_CHILD = """
import json, sys
{setup}
from sartor.spaces import from_spec
spec, archs = json.load(sys.stdin)
space = from_spec(spec)
print(json.dumps([space.id, [space.key(a) for a in archs]]))
"""


def check_space(
    space: SearchSpace, *, networks: bool = True, setup: str = "", samples: int = 4, enumerate_below: int = 20_000
) -> None:
    """The whole suite.

    networks: False for table spaces that build none; setup: import that registers the space in a new process;
    samples: how many networks are built; enumerate_below: count by enumeration up to this size.
    """
    rng = np.random.default_rng(0)
    archs = space.sample(rng, 32)
    check_architectures(space, archs, enumerate_below)
    check_encodings(space, archs)
    check_json(space, archs[:8], setup)
    check_windows(space, rng)
    if space.local_parts:
        check_local_parts(space, archs)
    if networks and isinstance(Complexity(space, "macs"), SoftScore):
        check_counts(space, archs[:8])
    if networks:
        for arch in archs[:samples]:
            check_network(space, arch)
        check_supernet(space, archs[:samples])


def check_architectures(space: SearchSpace, archs: Sequence[Sequence[int]], enumerate_below: int) -> None:
    assert space.size >= 1
    assert len(archs) == 32
    for arch in archs:
        assert space.canonical(arch) == arch
        assert all(type(k) is int for k in arch)
        assert all(on or k == 0 for k, on in zip(arch, space.active(arch)))
    other = space.sample(np.random.default_rng(0), 32)
    assert other == archs, "sampling must be a pure function of the generator"
    if space.size <= enumerate_below:
        everything = list(space.enumerate())
        assert len(everything) == len(set(everything)) == space.size
        assert everything == sorted(everything)
        assert set(archs) <= set(everything)
    rng = np.random.default_rng(1)
    for _ in range(16):
        raw = tuple(int(rng.integers(len(s))) for s in space.slots)
        assert space.canonical(space.canonical(raw)) == space.canonical(raw)
        assert space.key(raw) == space.key(space.canonical(raw))
    for wrong in ((*archs[0], 0), tuple(len(s) for s in space.slots) or (0,)):
        try:
            space.canonical(wrong)
        except UserError:
            continue
        raise AssertionError(f"{wrong} was accepted")


def check_encodings(space: SearchSpace, archs: Sequence[Sequence[int]]) -> None:
    rows = space.one_hot(archs)
    assert rows.shape == (len(archs), sum(len(s) for s in space.slots))
    assert set(np.unique(rows)) <= {0.0, 1.0}
    for row, arch in zip(rows, archs):
        for i, on in enumerate(space.active(arch)):
            block = row[space.offsets[i] : space.offsets[i + 1]]
            assert block.sum() == float(on)
            assert not on or block[arch[i]] == 1.0
    assert space.feature_map.shape[0] == rows.shape[1]
    np.testing.assert_allclose(space.encode(archs, space.feature_map), rows @ space.feature_map)
    assert np.isfinite(space.feature_map).all()
    assert len({s.name for s in space.slots}) == len(space.slots), "slot names must be unique"
    for slot in space.slots:
        assert len(set(slot.candidates)) == len(slot.candidates) >= 1
        assert slot.features is None or len(slot.features) == len(slot)
    assert all(0 <= i < len(space.slots) and 0 <= j < len(space.slots) for i, j in space.edges)


def check_json(space: SearchSpace, archs: Sequence[Sequence[int]], setup: str) -> None:
    for arch in archs:
        assert space.from_json(json.loads(json.dumps(space.to_json(arch)))) == arch
    keys = [space.key(a) for a in archs]
    child = subprocess.run(
        [sys.executable, "-c", _CHILD.format(setup=setup)],
        input=json.dumps([space.spec(), archs]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == [space.id, keys]


def check_windows(space: SearchSpace, rng: np.random.Generator) -> None:
    if not space.slots:
        return
    for _ in range(3):
        keep = {
            i: sorted(rng.choice(len(s), rng.integers(1, len(s) + 1), replace=False).tolist())
            for i, s in enumerate(space.slots)
            if rng.random() < 0.7
        }
        window = space.restrict(keep)
        assert isinstance(window, Restricted)
        assert window.size <= space.size
        for arch in window.sample(rng, 4):
            lifted, whole = window.lift(arch), window.base
            assert whole.canonical(lifted) == lifted
            assert window.key(arch) == whole.key(lifted)
            assert window.active(arch) == whole.active(lifted)
            assert window.lifts([arch]) == [lifted]
            assert window.from_json(json.loads(json.dumps(window.to_json(arch)))) == arch


def check_counts(space: SearchSpace, archs: Sequence[Sequence[int]]) -> None:
    """Where counts have terms, they are those of the parts."""
    counted = [space.counted(arch) for arch in archs]
    assert None not in counted
    for name in COUNTED:
        direct = [sum(count_part(part)[name] for part in parts or ()) for parts in counted]
        np.testing.assert_allclose(Complexity(space, name)(archs), direct)


def check_local_parts(space: SearchSpace, archs: Sequence[Sequence[int]]) -> None:
    """With `local_parts`, what stands for a slot depends on that slot alone, and what is fixed never changes."""
    known: dict[tuple[int | None, int], list[str]] = {}
    for arch in archs:
        found: dict[tuple[int | None, int], list[str]] = {(None, 0): []}
        found |= {(i, arch[i]): [] for i, on in enumerate(space.active(arch)) if on}
        for part in space.parts(arch) or []:
            found[part.slot, 0 if part.slot is None else arch[part.slot]].append(part.key)
        for choice, keys in found.items():
            assert known.setdefault(choice, keys) == keys, f"parts of {choice} depend on other choices"


def _run(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    out = network(*inputs)
    assert isinstance(out, Tensor)
    assert torch.isfinite(out).all()
    return out


def check_network(space: SearchSpace, arch: Sequence[int]) -> None:
    torch.manual_seed(0)
    network, inputs = space.network(arch), space.inputs(2, arch)
    assert all(x.shape[0] == 2 for x in inputs)
    out = _run(network, inputs)
    assert out.shape[0] == 2
    if any(p.requires_grad for p in network.parameters()):
        out.sum().backward()
        assert any(p.grad is not None for p in network.parameters())
    network.eval()
    deployed = space.deploy(network)
    with torch.no_grad():
        before, after = _run(network, inputs), _run(deployed, inputs)
    assert not deployed.training
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    parts = space.parts(arch)
    if parts is not None:
        assert all(p.slot is None or space.active(arch)[p.slot] for p in parts)
        again = space.parts(arch)
        assert again is not None
        assert [p.key for p in parts] == [p.key for p in again]
        joined = space.assemble([p.make() for p in parts]).eval()
        with torch.no_grad():
            assert _run(joined, inputs).shape == out.shape


def shaken(module: Any) -> Any:
    """With weights and statistics of its own everywhere, as after training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=generator) * (1.0 if "var" in name else 0.5)
    return module.eval()


def check_supernet(space: SearchSpace, archs: Sequence[Sequence[int]]) -> None:
    if not space.has_supernet:
        return
    supernet = shaken(space.supernet())
    assert isinstance(supernet, nn.Module)
    for arch in archs:
        inputs = space.inputs(2, arch)
        index = space.canonical(arch)
        supernet.eval()
        with torch.no_grad():
            shared = _run(lambda *x, index=index: supernet(*x, path=Path(index)), inputs)  # type: ignore[arg-type]
            alone = supernet.extract(arch).eval()  # type: ignore[operator]
            torch.testing.assert_close(_run(alone, inputs), shared, rtol=1e-4, atol=1e-5)
        gates = tuple(torch.eye(len(s))[k].requires_grad_() for s, k in zip(space.slots, index))
        gated = supernet(*inputs, path=Path(index, gates))
        torch.testing.assert_close(gated, shared, rtol=1e-4, atol=1e-5)
        if gated.requires_grad and gates:
            gated.sum().backward()
            supernet.zero_grad()
        if getattr(supernet, "mixes", False):
            check_mixed(space, supernet, index, inputs)


def check_mixed(space: SearchSpace, supernet: nn.Module, index: tuple[int, ...], inputs: tuple[Tensor, ...]) -> None:
    """All candidates weighed by one-hot gates are the path; by others, every gate has a say."""
    with torch.no_grad():
        shared = _run(lambda *x: supernet(*x, path=Path(index)), inputs)
        hard = tuple(torch.eye(len(s))[k] for s, k in zip(space.slots, index))
        mixed = _run(lambda *x: supernet(*x, path=Path(index, hard, mixed=True)), inputs)
    torch.testing.assert_close(mixed, shared, rtol=1e-4, atol=1e-5)
    soft = tuple(torch.full((len(s),), 1.0 / len(s), requires_grad=True) for s in space.slots)
    supernet(*inputs, path=Path(index, soft, mixed=True)).sum().backward()
    assert all(g.grad is not None and torch.isfinite(g.grad).all() for g in soft)
    supernet.zero_grad()
