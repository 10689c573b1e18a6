"""Blocks found in networks, grafted and collapsed: whole networks keep their outputs, and what cannot be is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sartor import spaces
from sartor.core import UserError
from sartor.data.vision import import_torchvision
from sartor.layers.affine import Affine
from sartor.reparam.blocks import Anatomy, Block, anatomy
from sartor.reparam.border import BORDERS
from sartor.reparam.fold import deployed
from sartor.reparam.graft import Grafted, candidates, graft
from sartor.spaces import models as models_of
from sartor.spaces.complexity import Complexity
from sartor.spaces.grafts import CANDIDATES, Grafts
from tests.contracts.spaces import check_space, shaken

models = import_torchvision().models


def random(network: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation and double precision, with batch norms that have seen something."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network


def grafted(found: Anatomy, chosen: dict[str, str], **options: str) -> nn.Sequential:
    return nn.Sequential(
        *(
            graft(stage, chosen.get(stage.name, "keep"), **options) if isinstance(stage, Block) else stage
            for stage in found.stages
        )
    ).eval()


def collapsed(network: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(part.collapse() if isinstance(part, Grafted) else part for part in network)).eval()


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "regnet_x_400mf", "vgg11_bn", "mnasnet0_5"])
def test_kept_blocks_are_the_network_itself(name) -> None:
    network = random(models.get_model(name, weights=None))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    whole = grafted(anatomy(network), {})
    torch.testing.assert_close(whole(x), network(x))
    torch.testing.assert_close(collapsed(whole)(x), network(x))


@pytest.mark.parametrize(
    ("name", "pixels"), [("mobilenet_v2", 32), ("mobilenet_v2", 97), ("resnet50", 97), ("resnet18", 33)]
)
def test_collapsed_networks_have_the_outputs_of_grafted_ones(name, pixels) -> None:
    network = random(models.get_model(name, weights=None))
    found, rng = anatomy(network), np.random.default_rng(0)
    x = torch.randn(2, 3, pixels, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for linear in ("identity", "affine"):
        chosen = {block.name: str(rng.choice(candidates(block))) for block in found.blocks}
        one = grafted(found, chosen, linear=linear)
        other = collapsed(one)
        right = one(x)
        assert float((other(x) - right).detach().abs().max() / right.detach().abs().max()) < 1e-8
        assert convolutions(other) < convolutions(network)
        assert not any(isinstance(module, Affine) for module in other.modules())


def test_a_grafted_block_is_one_convolution() -> None:
    network = random(models.mobilenet_v2(weights=None))
    found = anatomy(network)
    assert [block.name for block in found.blocks] == [f"features.{i}" for i in range(1, 18)]
    one = collapsed(grafted(found, {block.name: "graft" for block in found.blocks}))
    assert convolutions(one) == 1 + 17 + 1
    assert all(module.groups == 1 for module in one.modules() if isinstance(module, nn.Conv2d))


def halves(stride: int, shortcut: bool) -> nn.Module:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.b = nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 3, stride, 1)
            self.c = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.c(torch.relu(self.b(self.act(self.a(x)))))
            return x + y if shortcut else y

    return nn.Sequential(Pair(), nn.Flatten())


@pytest.mark.parametrize("border", BORDERS)
def test_every_border_keeps_its_promise_in_every_candidate(border) -> None:
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    (block,) = anatomy(halves(1, True).double()).blocks
    assert candidates(block) == ("keep", "graft", "first", "last", "skip")
    for candidate in candidates(block):
        one = graft(block, candidate, border, size=(9, 9))
        apart = float((one.collapse()(x) - one(x)).detach().abs().max())
        exact = border != "ignore" or candidate in ("keep", "skip", "last")  # the last two pad before both
        assert (apart < 1e-12) == exact, candidate


def normed(factor: float = 1.0, approximate: str = "none") -> nn.Module:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 1, 1)
            self.c, self.d = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.d(self.c(nn.functional.gelu(self.b(self.norm(torch.relu(self.a(x)))), approximate=approximate)))
            return x + y if factor == 1.0 else torch.add(x, y, alpha=factor)

    return nn.Sequential(Normed())


@pytest.mark.parametrize("border", BORDERS)
def test_a_block_that_is_kept_is_the_block_wherever_its_norms_and_paddings_are(border) -> None:
    network, x = random(normed()), torch.randn(2, 4, 9, 9, dtype=torch.float64)
    (block,) = anatomy(network).blocks
    kept = graft(block, "keep", border, size=(9, 9)).eval()
    for one in (kept, kept.collapse(), deployed(kept)):
        torch.testing.assert_close(one(x), network[0](x))


def test_what_a_block_computes_besides_is_refused() -> None:
    assert len(anatomy(normed()).blocks) == 1
    for other, words in ((normed(factor=0.1), "with a factor"), (normed(approximate="tanh"), "gelu")):
        with pytest.raises(UserError, match=words):
            anatomy(other)


@pytest.mark.parametrize("border", BORDERS)
def test_a_block_may_begin_with_an_activation(border) -> None:
    class Begun(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(torch.relu(self.a(torch.relu(x))))

    network, x = nn.Sequential(Begun()).double().eval(), torch.randn(2, 4, 9, 9, dtype=torch.float64)
    (block,) = anatomy(network).blocks
    for candidate in candidates(block):
        one = graft(block, candidate, border, size=(9, 9)).eval()
        apart = float((one.collapse()(x) - one(x)).detach().abs().max())
        assert apart < 1e-12 or (border, candidate) in {("ignore", "graft"), ("ignore", "last")}


def test_norms_of_the_batch_are_left_where_they_are() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()]
    network, x = nn.Sequential(*layers).eval(), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(deployed(network)(x), network(x))


def test_activations_are_where_the_paper_has_them() -> None:
    (block,) = anatomy(halves(2, False)).blocks
    assert [type(layer) for layer in graft(block, "graft").after] == [nn.ReLU]  # the block itself ended without
    assert len(graft(block, "graft", last="leave").after) == 0
    assert candidates(block) == ("keep", "graft", "first", "last")
    (first, *_) = anatomy(models.resnet18(weights=None)).blocks
    one = graft(first, "graft")
    assert [type(layer) for layer in one.after] == [nn.ReLU]
    assert [type(layer) for layer in graft(first, "graft", last="leave").after] == [nn.ReLU]  # its own
    assert len(one.rows) == 1
    assert len(one.between) == 0


@pytest.mark.parametrize("candidate", ["keep", "graft", "skip"])
def test_every_candidate_learns_where_activations_are_in_place(candidate) -> None:
    found = anatomy(models.resnet18(weights=None))
    network = grafted(found, {block.name: candidate for block in found.blocks if candidate in candidates(block)})
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(x), collapsed(network)(x), rtol=1e-3, atol=1e-3)
    network.train()(x).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


class PreActivated(nn.Module):
    """As in ResNet v2: norm and activation before each convolution, nothing behind the sum."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.norm, self.a = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride, 1, bias=False)
        self.between, self.b = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 1, 1)
        self.around = nn.Conv2d(4, 4, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(torch.relu(self.norm(x)))
        return self.around(x) + self.b(torch.relu(self.between(y)))


@pytest.mark.parametrize("stride", [1, 2])
def test_activations_before_convolutions_are_merged_behind(stride) -> None:
    network = random(nn.Sequential(nn.Conv2d(3, 4, 1), PreActivated(stride), nn.Flatten()))
    found, x = anatomy(network), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(grafted(found, {})(x), network(x))
    for candidate in candidates(found.blocks[0]):
        one = grafted(found, {"1": candidate})
        torch.testing.assert_close(collapsed(one)(x), one(x))
    assert convolutions(collapsed(grafted(found, {"1": "graft"}))) == 2 + (stride > 1)  # the shortcut sees other values


class Elsewhere(nn.Module):
    """Of equal size, but its branches look at other pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.b = nn.Conv2d(4, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)
        self.around = nn.Conv2d(4, 4, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.around(x) + self.b(self.act(self.a(x)))


def test_weights_are_the_networks_own_until_they_are_copied() -> None:
    network = models.resnet18(weights=None)
    (first, *_) = anatomy(network).blocks
    one = graft(first, "graft")
    own = {id(p) for p in network.parameters()}
    assert {id(p) for p in one.parameters()} <= own
    assert network.layer1[0].conv2.padding == (1, 1)  # what is converted is a copy
    assert one.rows[0][0].padding == (2, 2)


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("mobilenet_v3_small", "features.1", "multiplied"),
        ("efficientnet_v2_s", "features.4.0", "multiplied"),
        ("shufflenet_v2_x1_0", None, "stage2.0.branch2"),
        ("densenet121", None, "denselayer1 and 57 more: maps are put one behind the other"),
        ("vit_b_16", None, "no convolutions"),
    ],
)
def test_what_cannot_be_grafted_is_named_with_the_reason(name, where, reason) -> None:
    network = models.get_model(name, weights=None)
    if where is not None:
        assert reason in anatomy(network).refused[where]
        return
    with pytest.raises(UserError, match=reason):
        anatomy(network)


class Moody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x))) if x.sum() > 0 else x


class Shaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(torch.relu(self.a(x)))
        return x + y if x.shape == y.shape else y


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Shaped(), r"depends on the data or on shapes .*test_grafts.py line \d+: return x \+ y if"),
        (Elsewhere(), "same pixels"),
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.PReLU(), nn.Conv2d(3, 3, 3)), "PReLU is in it"),
        (Moody(), "depends on the data"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "no convolutions"),
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)), "no activation between"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(3, 3, 3)), "zeros"),
    ],
)
def test_networks_that_cannot_be_compressed_say_why(network, reason) -> None:
    with pytest.raises(UserError, match=reason):
        anatomy(network)


def test_networks_that_a_search_found_can_be_grafted() -> None:
    space = spaces.get("mobilenet:tiny")
    network = random(space.network((0, 1, 6, 2, 3, 6, 4, 5, 0)))
    found = anatomy(network)
    assert len(found.blocks) == 9 - 2 + 1  # two skips; the fixed first block
    one = grafted(found, {block.name: "graft" for block in found.blocks})
    x = space.inputs(2)[0].double()
    torch.testing.assert_close(collapsed(one)(x), one(x))
    one.train()(x)  # its depthwise layers, too, where padding is elsewhere


def test_a_shared_activation_and_a_view_are_no_obstacle() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.act, self.end = nn.ReLU(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.second(self.act(self.first(x))))
            x = x.mean((2, 3))
            return self.end(x.view(x.size(0), -1))

    network = Plain()
    found = anatomy(network)
    assert [block.name for block in found.blocks] == ["first-second"]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(grafted(found, {})(x), network(x))


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "resnext50_32x4d"])
def test_larger_rows_begin_with_the_same_outputs_and_collapse_to_the_same_shape(name) -> None:
    (first, second, *_) = anatomy(random(models.get_model(name, weights=None))).blocks
    for block in (first, second):
        for candidate in ("graft", *(c for c in ("first", "last") if c in candidates(block))):
            plain = graft(block, candidate, linear="affine").double().eval()
            large = graft(block, candidate, linear="affine", wider=2, deeper=1).double().eval()
            channels = next(layer.in_channels for layer in block.chain if isinstance(layer, nn.Conv2d))
            x = torch.randn(2, channels, 9, 9, dtype=torch.float64)
            torch.testing.assert_close(large(x), plain(x))
            torch.testing.assert_close(large.collapse()(x), plain(x))
            shapes = [[p.shape for p in one.collapse().parameters()] for one in (plain, large)]
            assert shapes[0] == shapes[1]
            assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in plain.parameters())


def test_copies_of_a_channel_learn_different_things() -> None:
    (block, *_) = anatomy(models.mobilenet_v2(weights=None)).blocks[1:]
    large = graft(block, "graft", wider=2)
    large(torch.randn(8, 16, 8, 8)).square().mean().backward()
    slope = large.rows[0][0].weight.grad
    assert not torch.allclose(slope[::2], slope[1::2], rtol=1e-3)


# ---------------------------------------------------------------------- the space

SMALL = """
from torch import nn


def small(width=8, classes=10):
    def block(inputs, outputs, stride):
        return nn.Sequential(
            nn.Conv2d(inputs, 2 * inputs, 1, bias=False), nn.BatchNorm2d(2 * inputs), nn.ReLU6(),
            nn.Conv2d(2 * inputs, 2 * inputs, 3, stride, 1, groups=2 * inputs, bias=False), nn.BatchNorm2d(2 * inputs),
            nn.ReLU6(), nn.Conv2d(2 * inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )

    class Around(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            return x + self.inside(x)

    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        block(width, 2 * width, 2), Around(block(2 * width, 2 * width, 1)), Around(block(2 * width, 2 * width, 1)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
    )


def text():
    return "no network"
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "mine.py"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def small(file: str) -> Grafts:
    return Grafts(f"{file}:small", channels=1, resolution=8)


def test_spaces_of_grafts_keep_the_contract(small) -> None:
    assert [slot.candidates for slot in small.slots] == [CANDIDATES[:4], CANDIDATES, CANDIDATES]
    assert [slot.name for slot in small.slots] == ["3", "4", "5"]
    check_space(small)


def test_parts_of_equal_blocks_are_measured_once(small) -> None:
    one, *_, other = (part for part in small.parts((1, 1, 1)) if part.slot in (1, 2))
    assert (one.key, one.inputs) == (other.key, other.inputs)
    assert small.key((1, 0, 1)) != small.key((1, 1, 0))


def test_counts_are_of_what_is_deployed(small) -> None:
    macs = Complexity(small, "macs")
    c = 16
    whole, grafted = macs([(0, 0, 0), (0, 1, 0)])
    assert whole - grafted == 16 * ((4 * c * c + 2 * c * 9) - 9 * c * c)  # 4x4 pixels
    assert macs([(0, 0, 0)])[0] - macs([(0, 4, 0)])[0] == 16 * (4 * c * c + 2 * c * 9)


def test_weights_of_the_model_are_where_training_begins(file, tmp_path) -> None:
    torch.manual_seed(1)
    network = models_of.model(f"{file}:small").make()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pt")
    torch.save({"epoch": 3, "model": network.state_dict()}, tmp_path / "checkpoint.pt")
    for name in ("weights.safetensors", "weights.pt", "checkpoint.pt"):
        space = Grafts(f"{file}:small", weights=str(tmp_path / name), channels=1, resolution=8)
        x = space.inputs(2)[0]
        torch.testing.assert_close(space.tuned(space.unchanged).eval()(x), network.eval()(x))
        assert not torch.allclose(space.network(space.unchanged).eval()(x), network(x))
        alone = space.supernet().extract((1, 2, 4)).eval()
        torch.testing.assert_close(alone(x), space.tuned((1, 2, 4)).eval()(x))
    torch.save({}, tmp_path / "other.pt")
    for wrong, says in (("other.pt", "no weights of this network"), ("none.pt", "there is no file")):
        with pytest.raises(UserError, match=says):
            Grafts(f"{file}:small", weights=str(tmp_path / wrong), channels=1, resolution=8)


def test_what_is_larger_in_training_is_measured_and_counted_as_it_is_deployed(file, small) -> None:
    pro = Grafts(f"{file}:small", channels=1, resolution=8, wider=2, deeper=1)
    check_space(pro)
    arch = (1, 2, 1)
    assert pro.key(arch) == small.key(arch)
    assert Complexity(pro, "macs")([arch])[0] == Complexity(small, "macs")([arch])[0]
    network = pro.network(arch)
    assert sum(p.numel() for p in network.parameters()) > sum(p.numel() for p in small.network(arch).parameters())
    shapes = [[p.shape for p in space.deploy(space.network(arch)).parameters()] for space in (pro, small)]
    assert shapes[0] == shapes[1]


def test_candidates_of_a_supernet_share_their_weights(small) -> None:
    supernet = small.supernet()
    one = sum(p.numel() for p in supernet.parameters())
    assert one == sum(p.numel() for p in small.network(small.unchanged).parameters())


def test_a_run_that_holds_others_says_which_of_them_has_the_network(tmp_path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "architecture.json").write_text("{}")
    with pytest.raises(UserError, match=f"give {tmp_path}/search"):
        Grafts(f"run:{tmp_path}")


@pytest.mark.parametrize("border", BORDERS)
def test_deployed_networks_answer_the_same(file, border) -> None:
    space = Grafts(f"{file}:small", channels=1, resolution=8, border=border, linear="affine")
    x = space.inputs(3)[0]
    for arch in space.sample(np.random.default_rng(0), 5):
        network = shaken(space.network(arch))
        apart = float((space.deploy(network)(x) - network(x)).detach().abs().max())
        assert apart < 1e-4 or border == "ignore"


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("torchvision:resnet19", {}, "unknown torchvision model 'resnet19'"),
        ("torchvision:resnet18?classes=3", {}, "builds no network"),
        ("resnet18", {}, "none of torchvision:NAME"),
        ("run:nowhere", {}, "holds no architecture.json; give the directory of a finished"),
        ("nowhere.py:small", {}, "there is no file"),
        ("FILE:large", {}, "no function 'large'"),
        ("FILE:text", {}, "has to return an nn.Module"),
        ("FILE:small", {"border": "round"}, "pad-first"),
        ("FILE:small", {"candidates": "keep,cut"}, "unknown candidate"),
        ("FILE:small", {"resolution": 0}, "out of range"),
        ("torchvision:vit_b_16", {}, "no convolutions"),
    ],
)
def test_what_no_space_can_be_made_of(file, model, options, says) -> None:
    with pytest.raises(UserError, match=says):
        Grafts(model.replace("FILE", file), **{"channels": 1, **options})


def test_a_space_says_which_option_it_needs() -> None:
    with pytest.raises(UserError, match=r"needs model; write grafts\?model="):
        spaces.get("grafts")
    assert spaces.get("grafts?model=torchvision:resnet18%3Fnum_classes=7").network((0,) * 8)[-1][-1].out_features == 7


def test_published_counts() -> None:
    """ALGORITHMS 5.8: 300.8 M multiply-accumulates of MobileNetV2, 257.5 M with all blocks grafted."""
    space = spaces.get("grafts?model=torchvision:mobilenet_v2&candidates=graft")
    assert space.size == 2**17
    kept, grafted = Complexity(space, "macs")([(0,) * 17, (1,) * 17])
    assert (round(kept / 1e5), round(grafted / 1e5)) == (3008, 2575)
