"""Weight sharing and the MobileNet spaces: what runs, what stays, what is taken out, and the published layouts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sartor import spaces
from sartor.core import Path, SearchSpace, UserError
from sartor.export import onnx_model, onnx_models, stitch
from sartor.layers.mbconv import SqueezeExcite
from sartor.spaces.mobilenet import OPERATORS, PRESETS, MobileNet
from sartor.supernet import ChainSupernet, recalibrated
from tests.contracts.spaces import check_architectures, check_encodings, check_local_parts, check_network, check_space
from tests.toys import ToySpace

PREFIX = {"lightnas": "resolution=32&width=0.25", "surgenas": "resolution=32&width=0.2", "cifar": "width=0.25"}


def small(preset: str, options: str = "") -> MobileNet:
    """The preset, scaled down to what runs in milliseconds."""
    query = "&".join(filter(None, (PREFIX.get(preset, ""), options)))
    space = spaces.get(f"mobilenet:{preset}" + (f"?{query}" if query else ""))
    assert isinstance(space, MobileNet)
    return space


def some(space: SearchSpace, n: int, seed: int = 0) -> list[tuple[int, ...]]:
    return space.sample(np.random.default_rng(seed), n)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------------- the supernet


def test_only_the_chosen_operators_run() -> None:
    space = small("tiny")
    supernet, ran = ChainSupernet(space), list[nn.Module]()
    for column in supernet.columns:
        for module in column:  # type: ignore[attr-defined]
            module.register_forward_hook(lambda module, *_: ran.append(module))
    for arch in some(space, 5):
        ran.clear()
        supernet(*space.inputs(2), path=Path(arch))
        assert ran == supernet.modules_on(arch)
        assert len(ran) == len(space.slots) + 3


def test_what_is_off_the_path_is_bit_identical_after_steps() -> None:
    space = small("tiny")
    torch.manual_seed(0)
    supernet = ChainSupernet(space)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step(arch: Sequence[int]) -> None:
        optimiser.zero_grad(set_to_none=True)
        supernet(*space.inputs(4), path=Path(tuple(arch))).square().mean().backward()
        optimiser.step()

    everyone = [tuple(k for _ in space.slots) for k in range(7)]
    for arch in everyone:  # every operator has momentum
        step(arch)
    chosen = everyone[3]
    off = [m for a in everyone[:3] + everyone[4:] for m in supernet.modules_on(a)]
    off = [m for m in off if m not in supernet.modules_on(chosen)]
    names = [p for m in off for p in m.parameters()]
    before = [state(m) for m in off]
    momentum = [optimiser.state[p]["momentum_buffer"].clone() for p in names]
    moved = [state(m) for m in supernet.modules_on(chosen)]
    for _ in range(3):
        step(chosen)
    assert all(same(old, state(m)) for old, m in zip(before, off))
    assert all(torch.equal(old, optimiser.state[p]["momentum_buffer"]) for old, p in zip(momentum, names))
    assert not any(same(old, state(m)) for old, m in zip(moved, supernet.modules_on(chosen)) if old)


@pytest.mark.parametrize("preset", ["tiny", "lightnas"])
def test_an_extracted_network_is_the_path_also_after_training(preset: str) -> None:
    space = small(preset)
    torch.manual_seed(1)
    supernet = ChainSupernet(space)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05)
    archs = some(space, 3)
    x = space.inputs(4)
    for trained in (False, True):
        if trained:
            supernet.train()
            for arch in archs * 2:
                optimiser.zero_grad(set_to_none=True)
                supernet(*x, path=Path(arch)).square().mean().backward()
                optimiser.step()
        supernet.eval()
        for arch in archs:
            alone = supernet.extract(arch).eval()
            with torch.no_grad():
                torch.testing.assert_close(alone(*x), supernet(*x, path=Path(arch)), rtol=1e-5, atol=1e-6)
            alone.load_state_dict(space.network(arch).state_dict())  # it is a network of the space
            before = state(supernet)
            for parameter in alone.parameters():
                parameter.data.zero_()
            assert same(before, state(supernet)), "the copy shares nothing with the supernet"


def test_gates_multiply_and_carry_gradients_to_the_chosen_candidate_only() -> None:
    space = small("tiny")
    supernet, arch = ChainSupernet(space).eval(), some(space, 1)[0]
    gates = tuple(torch.eye(7)[k].requires_grad_() for k in arch)
    x = space.inputs(2)
    gated = supernet(*x, path=Path(arch, gates))
    torch.testing.assert_close(gated, supernet(*x, path=Path(arch)))
    gated.square().sum().backward()
    for gate, k in zip(gates, arch):
        assert gate.grad is not None
        assert gate.grad[k] != 0
        assert gate.grad.count_nonzero() == 1


def test_a_space_without_a_part_per_slot_is_refused() -> None:
    space = ToySpace()
    space.local_parts = False
    with pytest.raises(UserError, match="no part per slot"):
        ChainSupernet(space)
    with pytest.raises(UserError, match="has no supernet"):
        space.supernet()


def test_a_restricted_supernet_runs_the_same_network_and_nothing_outside() -> None:
    base = small("tiny")
    space = base.restrict({0: [1, 6], 4: [2], 8: [5, 0, 3]})
    torch.manual_seed(3)
    supernet: Any = space.supernet()
    supernet.eval()
    x = space.inputs(2)
    for arch in some(space, 4):
        lifted = space.lift(arch)  # type: ignore[attr-defined]
        with torch.no_grad():
            inside, outside = supernet(*x, path=Path(arch)), supernet.base(*x, path=Path(lifted))
            assert torch.equal(inside, outside)
            torch.testing.assert_close(supernet.extract(arch).eval()(*x), inside, rtol=1e-5, atol=1e-6)
        gates = tuple(torch.eye(len(s))[k].requires_grad_() for s, k in zip(space.slots, arch))
        gated = supernet(*x, path=Path(arch, gates))
        torch.testing.assert_close(gated, inside)
        gated.square().sum().backward()
        assert all(g.grad is not None and g.grad[k] != 0 for g, k in zip(gates, arch))
    assert space.restrict({0: [0]}).supernet() is not None


# ---------------------------------------------------------------------- batch-norm statistics


def inputs(space: SearchSpace, n: int, shift: float) -> Iterator[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(int(10 * shift))
    for _ in range(n):
        yield tuple(torch.randn(x.shape, generator=generator) * (1 + shift) + shift for x in space.inputs(8))


def test_recalibrated_statistics_are_those_of_the_batches_alone_and_are_restored() -> None:
    space = small("tiny")
    torch.manual_seed(0)
    supernet = ChainSupernet(space)
    first, second = some(space, 2)
    supernet.train()
    supernet(*space.inputs(8), path=Path(second))
    before = state(supernet)
    x = space.inputs(4)

    def evaluate(arch: Sequence[int], shift: float) -> Tensor:
        with torch.no_grad(), recalibrated(supernet, inputs(space, 3, shift), path=Path(tuple(arch))) as network:
            assert not network.training
            return network(*x, path=Path(tuple(arch)))  # type: ignore[no-any-return]

    one, two = evaluate(first, 0.0), evaluate(second, 2.0)
    assert same(before, state(supernet))
    assert supernet.training
    assert torch.equal(evaluate(second, 2.0), two)
    assert torch.equal(evaluate(first, 0.0), one), "what was evaluated before must not matter"
    assert not torch.equal(evaluate(first, 2.0), one)
    momenta = {m.momentum for m in supernet.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}


def test_recalibrated_means_are_plain_means_over_the_batches() -> None:
    norm = nn.BatchNorm2d(2, affine=False)
    batches = [(torch.randn(4, 2, 3, 3) + k,) for k in range(5)]
    with recalibrated(norm, batches) as network:
        wanted = torch.stack([x.mean((0, 2, 3)) for (x,) in batches]).mean(0)
        torch.testing.assert_close(network.running_mean, wanted)
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert norm.momentum == 0.1


def test_recalibrated_restores_also_when_the_evaluation_fails() -> None:
    space = small("tiny")
    supernet = ChainSupernet(space).train()
    before, arch = state(supernet), some(space, 1)[0]

    def fails() -> None:
        with recalibrated(supernet, inputs(space, 2, 1.0), path=Path(arch)):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fails()
    assert same(before, state(supernet))
    assert supernet.training


# ---------------------------------------------------------------------- MobileNet spaces


def test_lightnas_rows_are_the_published_ones() -> None:
    space = spaces.get("mobilenet:lightnas")
    assert isinstance(space, MobileNet)
    rows = [
        *[(16, 24, 2, 112), (24, 24, 1, 56)],
        *[(24, 48, 2, 56)] + [(48, 48, 1, 28)] * 2,
        *[(48, 72, 2, 28)] + [(72, 72, 1, 14)] * 3,
        *[(72, 128, 1, 14)] + [(128, 128, 1, 14)] * 2,
        *[(128, 160, 2, 14)] + [(160, 160, 1, 7)] * 3,
        *[(160, 176, 1, 7)] + [(176, 176, 1, 7)] * 3,
        (176, 384, 1, 7),
    ]
    assert list(space.rows) == rows
    assert (space.layout.stem, space.layout.first) == ((16, 2), 16)
    assert (space.layout.head, space.layout.hidden, space.classes) == (1984, 1280, 1000)
    assert OPERATORS == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6", "skip")
    assert space.size == 7**21 == 558_545_864_083_284_007
    head = space.network((6,) * 21)[-1]
    linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features, m.bias is not None) for m in linears] == [
        (1984, 1280, False),
        (1280, 1000, True),
    ]


def test_surgenas_rows_are_those_of_thesis_table_3_1() -> None:
    space = spaces.get("mobilenet:surgenas")
    assert isinstance(space, MobileNet)
    outputs = [32] * 4 + [56] * 4 + [112] * 4 + [128] * 4 + [256] * 4 + [432]
    assert [row[1] for row in space.rows] == outputs
    assert [row[0] for row in space.rows] == [24, *outputs[:-1]]
    strides = [2, 1, 1, 1] * 3 + [1, 1, 1, 1] + [2, 1, 1, 1] + [1]
    assert [row[2] for row in space.rows] == strides
    assert [row[3] for row in space.rows] == [112] + [56] * 4 + [28] * 4 + [14] * 8 + [7] * 4
    assert (space.layout.stem, space.layout.first, space.layout.head) == ((40, 2), 24, 1728)
    assert space.size == 7**21


def test_operators_are_what_their_names_say() -> None:
    space = spaces.get("mobilenet:lightnas")
    for k, name in enumerate(OPERATORS[:6]):
        kernel, expansion = int(name[1]), int(name[3])
        changing, keeping = (space.network((k,) * 21)[i] for i in (2, 3))
        convolutions = [m for m in keeping.modules() if isinstance(m, nn.Conv2d)]
        assert [c.kernel_size[0] for c in convolutions] == [1, kernel, 1]
        assert [c.out_channels for c in convolutions] == [24 * expansion, 24 * expansion, 24]
        assert convolutions[1].groups == 24 * expansion
        assert keeping.shortcut
        assert not changing.shortcut
    skipping = space.network((6,) * 21)
    assert isinstance(skipping[3], nn.Identity)
    convolution = next(m for m in skipping[2].modules() if isinstance(m, nn.Conv2d))
    assert (convolution.kernel_size, convolution.stride) == ((1, 1), (2, 2))
    first = [m for m in skipping[1].modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size[0] for c in first] == [3, 1], "the fixed block has expansion 1"


def test_tiny_passes_the_whole_contract() -> None:
    check_space(small("tiny"))


@pytest.mark.parametrize("preset", ["cifar", "lightnas", "surgenas"])
def test_presets_pass_the_contract(preset: str) -> None:
    space = small(preset)
    archs = some(space, 32)
    check_architectures(space, archs, 1000)
    check_encodings(space, archs)
    check_local_parts(space, archs)
    check_network(space, archs[0])
    again = spaces.from_spec(space.spec())
    assert again == space
    assert [again.from_json(space.to_json(a)) for a in archs] == archs
    assert [again.key(a) for a in archs] == [space.key(a) for a in archs]


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(
    ("options", "check"),
    [
        ("se=true", lambda s, n: sum(type(m).__name__ == "SqueezeExcite" for m in n.modules()) == min(9, s.layers)),
        ("layers=9", lambda s, n: len(s.slots) == s.layers == 9),
        ("width=0.3", lambda s, n: all(row[1] % 8 == 0 for row in s.rows)),
        ("classes=7", lambda s, n: n(*s.inputs(3)).shape == (3, 7)),
        ("resolution=40&channels=2", lambda s, n: s.inputs(1)[0].shape == (1, 2, 40, 40)),
        ("dropout=0", lambda s, n: {m.p for m in n.modules() if isinstance(m, nn.Dropout)} == {0.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_changes_what_it_names(preset: str, options: str, check: Any) -> None:
    given = dict(pair.split("=") for pair in "&".join(filter(None, (PREFIX.get(preset, ""), options))).split("&"))
    space = spaces.get(f"mobilenet:{preset}?" + "&".join(f"{k}={v}" for k, v in given.items()))
    assert isinstance(space, MobileNet)
    network = space.network((1,) * len(space.slots))  # k3e6 everywhere
    assert check(space, network)
    out = network(*space.inputs(2))
    out.sum().backward()
    assert out.shape == (2, space.classes)
    assert all(p.grad is not None for p in network.parameters())
    assert spaces.from_spec(space.spec()) == space


def test_exported_parts_stitched_together_are_the_exported_network() -> None:
    space = small("tiny", "se=true")
    torch.manual_seed(0)
    for arch in [some(space, 1)[0], (6,) * 9]:
        network, x = space.network(arch).eval(), space.inputs(1)
        for _ in range(3):  # statistics and weights that are not those of a fresh network
            network.train()(*space.inputs(8))
        deployed = space.deploy(network)
        parts = space.parts(arch)
        assert parts is not None
        shapes = [tuple(torch.randn(1, *shape) for shape in part.inputs) for part in parts]
        chain = stitch(onnx_models(list(deployed), shapes))  # type: ignore[call-overload]
        outputs = []
        for model in (chain, onnx_model(deployed, x)):
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            outputs.append(session.run(["output"], {"input0": x[0].numpy()})[0])
        np.testing.assert_array_equal(*outputs)
        with torch.no_grad():
            np.testing.assert_allclose(outputs[0], network.eval()(*x).numpy(), rtol=1e-3, atol=1e-5)


def test_squeeze_excite_can_be_chosen_a_layer_and_activations_for_all() -> None:
    space = spaces.get("mobilenet:cifar?width=0.25&resolution=16&se=choose&act=hardswish")
    check_space(space)
    assert [len(slot) for slot in space.slots] == [7] * (space.layers - 9) + [13] * 9
    chosen = tuple(slot.candidates.index("k5e3-se") if len(slot) == 13 else 2 for slot in space.slots)
    plain = tuple(slot.candidates.index("k5e3") for slot in space.slots)
    counted = [sum(isinstance(m, SqueezeExcite) for m in space.network(arch).modules()) for arch in (chosen, plain)]
    assert counted == [9, 0]
    kinds = {type(m) for m in space.network(chosen).modules()}
    assert nn.Hardswish in kinds
    assert nn.ReLU6 not in kinds
    other = spaces.get("mobilenet:cifar?width=0.25&resolution=16")
    assert not {part.key for part in space.parts(plain)} & {part.key for part in other.parts(plain)}
    for option in ("se=some", "act=tanh"):
        with pytest.raises(UserError, match=option.split("=")[1]):
            spaces.get(f"mobilenet:tiny?{option}")
    with pytest.raises(UserError, match="neither true nor false"):
        spaces.get("uniform:tiny?se=choose")
