"""Network Space Search: masks that are slices, costs of spaces, what is frozen, what is read out, what comes next."""

from __future__ import annotations

import contextlib
import copy
import json
from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from typer.testing import CliRunner

import sartor
from sartor import spaces, tasks
from sartor.choose.relax import Relaxation
from sartor.cli import app
from sartor.core import Budget, Path, UserError, metric
from sartor.methods.network_space_search import NetworkSpaceSearch
from sartor.predictors.mlp import MLP
from sartor.quality.spaces import beaten, distribution, draws_to_land, hypervolume, near, principled
from sartor.report import report
from sartor.runs import Run
from sartor.spaces.complexity import Complexity, count_network
from sartor.spaces.expanded import Expanded
from sartor.spaces.windows import Effective, SampledMean, Windows, mean
from tests.contracts.scores import check_score
from tests.contracts.spaces import check_space
from tests.test_one_idea import Interrupted, journals

BLOCKS = ("basic", "bottleneck", "inverted")
SMALL = Expanded(stages=2, depth=4, width=8, stem=4, resolution=8, channels=1)
WINDOWS = Windows(SMALL, 1, 2)
LIMIT = "150kMACs"
QUICK = {"depths": 1, "widths": 2, "epochs": 3, "warmup_epochs": 1, "batch_size": 128}


@pytest.fixture(scope="module")
def task():
    return tasks.get("digits")


def one_hot(space, arch):
    return tuple(torch.eye(len(slot))[k] for slot, k in zip(space.slots, arch))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_space_keeps_the_contract(block):
    check_space(Expanded(stages=2, depth=3, width=6, stem=4, block=block, resolution=9))


def test_windows_are_a_space_of_spaces():
    full = Windows(spaces.get("expanded"))
    assert full.of.size == 8192**3
    assert full.size == 2**18
    assert full.elite((0,) * 6).size == 2**21
    again = spaces.from_spec(json.loads(json.dumps(full.spec())))
    assert again == full
    assert list(full.elite((3, 15) * 3).slots[1].candidates) == [str(w) for w in range(481, 513)]
    check_space(WINDOWS, networks=False)


def test_the_largest_and_the_smallest_network_cost_what_they_should():
    macs = Complexity(spaces.get("expanded"), "macs")
    assert macs([(15, 511) * 3])[0] == pytest.approx(99.22e9, rel=1e-4)
    assert macs([(0, 0) * 3])[0] == pytest.approx(0.62e6, rel=1e-2)
    strided = Complexity(spaces.get("expanded?strides=2-2-2"), "macs")
    assert strided([(15, 511) * 3])[0] == pytest.approx(24.81e9, rel=1e-3)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["macs", "params", "mem_access_bytes"])
def test_counts_are_those_of_the_networks(block, name):
    space = Expanded(stages=3, depth=3, width=11, block=block, stem=5, resolution=9, strides="1-2-2")
    archs = space.sample(np.random.default_rng(0), 6)
    score = Complexity(space, name)
    assert score(archs).tolist() == [count_network(space, arch)[name] for arch in archs]
    check_score(score, space)
    window = space.restrict({1: [2, 3, 4], 2: [0, 2]})
    lifted = [window.lift(arch) for arch in window.sample(np.random.default_rng(1), 6)]
    inside = Complexity(window, name)(window.sample(np.random.default_rng(1), 6))
    assert inside.tolist() == score(lifted).tolist()


# ---------------------------------------------------------------------- masks


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), block=st.sampled_from(BLOCKS), training=st.booleans())
def test_masked_by_one_hot_gates_it_is_the_sliced_network(seed, block, training):
    space = Expanded(stages=2, depth=3, width=10, stem=4, block=block, resolution=7)
    torch.manual_seed(seed)
    supernet = space.supernet()
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.2 * torch.rand_like(tensor)
    arch = space.sample(np.random.default_rng(seed), 1)[0]
    supernet.train(training)
    network, masked, x = supernet.extract(arch).train(training), copy.deepcopy(supernet), torch.randn(4, 3, 7, 7)
    wanted = network(x)
    torch.testing.assert_close(masked(x, path=Path(arch, one_hot(space, arch))), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(supernet(x, path=Path(arch)), wanted, rtol=1e-6, atol=1e-6)
    after = [supernet.extract(arch), masked.extract(arch)]  # statistics have moved alike, too
    for one in after:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_what_is_not_in_the_network_has_no_gradient():
    supernet, x, arch = SMALL.supernet(), torch.randn(4, 1, 8, 8), (1, 2, 0, 4)
    supernet(x, path=Path(arch)).square().sum().backward()
    (first, second), (last, *rest) = supernet.stages[0][:2], supernet.stages[1]
    for block, width in ((first, 3), (second, 3), (last, 5)):
        for conv in block.convs:
            assert conv.weight.grad[:width].abs().sum() > 0
            assert not conv.weight.grad[width:].any()
    unused = [*supernet.stages[0][2:], *rest]
    assert all(p.grad is None for block in unused for p in block.parameters())
    supernet.zero_grad()
    supernet(x, path=Path((3, 7, 3, 7))).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in supernet.parameters())


def test_every_window_is_told_how_it_would_change_the_loss():
    supernet, x = SMALL.supernet(), torch.randn(8, 1, 8, 8)
    gates = tuple(torch.eye(len(slot))[1].requires_grad_() for slot in WINDOWS.slots)
    path = WINDOWS.path(Path((1,) * 4, gates), [[0] * 4, [0, 1, 1, 0], [0] * 4, [1, 0, 1, 0]])
    assert path.index == (1, 3, 1, 2)
    assert path.kept == ((0, 1, 2, 3), (0, 3, 5, 6), (0, 1, 2, 3), (1, 2, 5, 6))
    supernet(x, path=path).logsumexp(1).sum().backward()
    assert all(gate.grad.abs().min() > 0 for gate in gates)


# ---------------------------------------------------------------------- costs of spaces


def test_the_cost_of_a_space_is_the_mean_of_its_networks():
    macs = Complexity(SMALL, "macs")
    score = mean(macs, WINDOWS)
    check_score(score, WINDOWS)
    for arch in WINDOWS.sample(np.random.default_rng(0), 8):
        elite = WINDOWS.elite(arch)
        members = [elite.lift(member) for member in elite.enumerate()]
        assert score([arch])[0] == pytest.approx(macs(members).mean())
        assert set(WINDOWS.members(arch, np.random.default_rng(0), 50)) <= set(members)
        assert WINDOWS.middle(arch) in members
    check_score(Effective(WINDOWS), WINDOWS)


def test_effective_sizes_say_too_little():
    full = Windows(spaces.get("expanded"))
    exact, estimate = mean(Complexity(full.of, "macs"), full), Effective(full)
    share = estimate(full.sample(np.random.default_rng(0), 50)) / exact(full.sample(np.random.default_rng(0), 50))
    narrow = estimate([(0, 0) * 3])[0] / exact([(0, 0) * 3])[0]
    assert np.all(share < 1)
    assert 0.7 < narrow < 0.9
    with pytest.raises(UserError, match="basic"):
        Effective(Windows(Expanded(stages=1, depth=4, width=8, block="inverted"), 1, 2))


def test_predictors_without_terms_are_averaged_over_members():
    archs = SMALL.sample(np.random.default_rng(0), 300)
    predictor = MLP(epochs=30).fit(SMALL, archs, Complexity(SMALL, "macs")(archs) / 1e6, metric=metric("latency_ms"))
    score = mean(predictor, WINDOWS)
    assert isinstance(score, SampledMean)
    check_score(score, WINDOWS)
    for arch in WINDOWS.sample(np.random.default_rng(1), 5):
        elite = WINDOWS.elite(arch)
        assert score([arch])[0] == pytest.approx(predictor([elite.lift(a) for a in elite.enumerate()]).mean(), rel=0.02)


def test_a_mean_over_spaces_and_their_networks_is_that_over_networks():
    """Eq. 6, on everything there is."""
    space = Expanded(stages=1, depth=4, width=4)
    windows, loss = Windows(space, 2, 2), Complexity(space, "params")
    chances = [np.array([0.2, 0.8]), np.array([0.7, 0.3])]
    of_spaces = sum(
        chances[0][a]
        * chances[1][b]
        * loss(list(map(windows.elite((a, b)).lift, windows.elite((a, b)).enumerate()))).mean()
        for a, b in product(range(2), range(2))
    )
    of_networks = sum(chances[0][d // 2] / 2 * chances[1][w // 2] / 2 * loss([(d, w)])[0] for d, w in space.enumerate())
    gates = tuple(torch.tensor(chance) for chance in chances)
    assert of_spaces == pytest.approx(of_networks)
    assert float(mean(loss, windows).soft(gates)) == pytest.approx(of_networks)


# ---------------------------------------------------------------------- the search


def closer(windows, budget, arch):
    """Single-window moves that come closer to the target."""
    gap = lambda a: abs(float(budget.score([a])[0]) / budget.limit - 1)  # noqa: E731
    moves = [(*arch[:i], k, *arch[i + 1 :]) for i, slot in enumerate(windows.slots) for k in range(len(slot))]
    return [move for move in moves if gap(move) < gap(arch) - 1e-12]


def test_the_search_ends_at_its_budget_and_says_which_space(task, tmp_path):
    macs = Complexity(SMALL, "macs")
    found = sartor.search("network-space-search", SMALL, task, budget=macs.at(LIMIT), run=tmp_path / "run", **QUICK)
    assert isinstance(found.space, Windows)
    assert found.feasible
    assert found.winner.status == "optimal"
    cost = found.winner.predicted["macs"]
    assert 0.95 * 150e3 <= cost <= 150e3
    elite = spaces.get(str(tmp_path / "run" / "elite.json"))
    assert elite == found.space.elite(found.architecture)
    everything = [elite.lift(arch) for arch in elite.enumerate()]
    assert cost == pytest.approx(macs(everything).mean())
    told = found.extras["members"]["macs"]
    assert told["lowest"] == macs(everything).min()
    assert told["highest"] == macs(everything).max()
    for method in ("lightnas", "spos"):
        options = {"warmup_epochs": 1} if method == "lightnas" else {"iterations": 2, "population": 6, "keep": 2}
        inside = sartor.search(method, elite, task, budget=LIMIT, epochs=2, batch_size=128, **options)
        assert inside.feasible


def test_of_spaces_that_land_the_search_takes_the_likeliest(task, tmp_path):
    macs = Complexity(SMALL, "macs")
    landing = [arch for arch in WINDOWS.enumerate() if 142.5e3 <= mean(macs, WINDOWS)([arch])[0] <= 150e3]
    assert len(landing) > 3
    found = sartor.search("network-space-search", SMALL, task, budget=LIMIT, run=tmp_path / "run", **QUICK)
    last = json.loads((tmp_path / "run" / "search" / "journal.jsonl").read_text().splitlines()[-1])["permille"]
    chance = {arch: float(np.prod([row[k] for row, k in zip(last, arch)])) for arch in landing}
    assert chance[found.architecture] >= 0.99 * max(chance.values())


@pytest.mark.parametrize("limit", [40e3, 120e3, 150e3])
def test_without_the_loss_of_the_task_hardly_a_window_comes_closer(task, limit):
    budget = Budget(Complexity(SMALL, "macs"), limit)
    options = {**QUICK, "epochs": 12, "accuracy_term": False}
    found = sartor.search("network-space-search", SMALL, task, budget=budget, **options)
    assert abs(found.winner.predicted["macs"] / limit - 1) <= 0.05
    uniform = Relaxation(WINDOWS, torch.Generator()).probabilities()
    moves = sum(len(slot) - 1 for slot in WINDOWS.slots)
    assert len(closer(found.space, found.budgets[0], found.architecture)) < moves / 4
    assert float(found.budgets[0].score.soft(uniform)) != pytest.approx(limit, rel=0.1)  # not where it began


@pytest.mark.parametrize("options", [{"gates": "soft"}, {"controller": "published"}, {"complexity": "effective"}])
def test_every_way_to_search_runs_and_keeps_to_the_space(task, options):
    found = sartor.search("network-space-search", SMALL, task, budget=LIMIT, **QUICK, **options)
    assert found.space.canonical(found.architecture) == found.architecture
    assert found.feasible


def test_the_largest_sizes_are_mixed_in_until_the_warm_up_ends():
    method = NetworkSpaceSearch(epochs=8, warmup_epochs=4)
    assert [method._enabled(epoch) for epoch in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert NetworkSpaceSearch(epochs=8, warmup_epochs=0)._enabled(0) == 0


def test_soft_gates_weigh_channels_and_depths():
    space = Expanded(stages=1, depth=2, width=3, stem=2, resolution=6)
    supernet, x = space.supernet().eval(), torch.randn(2, 3, 6, 6)
    gates = (torch.tensor([0.3, 0.7]), torch.tensor([0.2, 0.3, 0.5]))
    first, second = supernet.stages[0]
    mask = torch.tensor([1.0, 0.8, 0.5])  # the share of widths that have each channel
    y = torch.relu(supernet.stem_norm(supernet.stem(x)))
    outputs = [first.run(y, 3, None, mask)]
    outputs.append(second.run(outputs[0], 3, mask, mask))
    mixed = 0.3 * outputs[0] + 0.7 * outputs[1]
    wanted = supernet.classify(mixed.mean((2, 3)))
    torch.testing.assert_close(supernet(x, path=Path((0, 0), gates)), wanted)


def test_logits_stay_in_the_warm_up(task, tmp_path):
    macs = Complexity(SMALL, "macs")
    sartor.search("network-space-search", SMALL, task, budget=macs.at(LIMIT), run=tmp_path / "run", **QUICK)
    journal = [json.loads(line) for line in (tmp_path / "run" / "search" / "journal.jsonl").read_text().splitlines()]
    course = [line["permille"] for line in journal if line["event"] == "epoch"]
    assert all(abs(p - 1000 / len(row)) <= 1 for row in course[0] for p in row)
    assert course[1] != course[0]


def test_what_is_read_out_is_the_nearest_of_what_is_drawn(task, tmp_path):
    macs = Complexity(SMALL, "macs")
    options = {**QUICK, "accuracy_term": False}
    for samples in (1, 20):
        where = tmp_path / str(samples)
        result = sartor.search(
            "network-space-search", SMALL, task, budget=macs.at(LIMIT), run=where, paper=True,
            **options, samples=samples,
        )  # fmt: skip
        drawn = [tuple(arch) for arch in result.extras["drawn"]]
        assert len(drawn) == samples
        gaps = np.abs(Effective(result.space)(drawn) / 150e3 - 1)
        assert abs(result.winner.predicted["macs"] / 150e3 - 1) == pytest.approx(gaps.min())
        assert result.winner.status == "sampled"


def test_several_budgets_are_kept(task):
    macs, params = Complexity(SMALL, "macs"), Complexity(SMALL, "params")
    limits = [macs.at(LIMIT), Budget(params, 2600.0)]
    found = sartor.search("network-space-search", SMALL, task, budget=limits, **QUICK)
    assert found.feasible
    assert {b.score.metric.name for b in found.budgets} == {"macs", "params"}


def test_other_spaces_and_sizes_are_refused_in_a_line(task):
    for space, options, words in (
        ("mobilenet:tiny", {}, "use expanded"),
        ("expanded?depth=4&width=8&channels=1&resolution=8", {"depths": 8}, "give a divisor"),
        ("expanded?depth=4&width=8&channels=1&resolution=8", {"depths": 3}, "give a divisor"),
    ):
        with pytest.raises(UserError, match=words):
            sartor.search("network-space-search", spaces.get(space), task, budget=LIMIT, **options)
    with pytest.raises(UserError, match="whole space"):
        Windows(WINDOWS.elite((0,) * 4), 1, 2)
    with pytest.raises(UserError, match="1-2-2"):
        spaces.get("expanded?strides=1-2")


@pytest.mark.parametrize("after", [5, 12, 25])
def test_an_interrupted_search_ends_in_the_same_space(task, tmp_path, monkeypatch, after):
    monkeypatch.setattr(Run, "checkpoint_seconds", 0.0)
    found = []
    for name, some in (("whole", task), ("cut", Interrupted(task, after)), ("cut", task)):
        with contextlib.suppress(KeyboardInterrupt):
            run = tmp_path / name
            found.append(sartor.search("network-space-search", SMALL, some, budget=LIMIT, run=run, **QUICK))
    whole, again = found
    assert again.winner == whole.winner
    assert again.extras == whole.extras
    assert journals(tmp_path / "cut") == journals(tmp_path / "whole")


# ---------------------------------------------------------------------- what a space is worth


def test_a_distribution_is_one():
    values = np.array([3.0, 1.0, np.nan, 2.0])
    where, share = distribution(values)
    assert where.tolist() == [1, 2, 3]
    assert share.tolist() == [1 / 3, 2 / 3, 1]
    assert distribution(values[::-1])[0].tolist() == where.tolist()


def test_a_network_is_beaten_by_what_is_no_worse_in_both():
    values = np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 2.0]])
    assert beaten(values, values).tolist() == [0, 2 / 3, 1 / 3]
    assert hypervolume(np.array([[0.0, 0.5], [0.5, 0.0]]), np.zeros(2), np.ones(2)) == pytest.approx(0.75)
    budget = Complexity(SMALL, "macs").at("100kMACs")
    assert draws_to_land(np.array([89e3, 91e3, 109e3, 111e3]), budget) == 2
    assert draws_to_land(np.array([50e3]), budget) == np.inf


def test_networks_of_the_principle_rise():
    space = Expanded(stages=3, depth=2, width=3)
    rising = [a for a in space.enumerate() if sorted(a[::2]) == list(a[::2]) and sorted(a[1::2]) == list(a[1::2])]
    drawn = principled(space, np.random.default_rng(0), 20_000)
    counts = Counter(drawn)
    assert set(counts) == set(rising)
    assert chisquare([counts[arch] for arch in rising]).pvalue > 1e-3


def test_networks_near_a_budget_are_what_was_drawn_there():
    budget, rng = Complexity(SMALL, "macs").at(LIMIT), np.random.default_rng(0)
    drawn = near(partial(SMALL.sample, rng), budget, 30)
    assert len(drawn) == 30
    assert np.all(np.abs(budget.score(drawn) / 150e3 - 1) <= 0.1)
    assert near(partial(SMALL.sample, rng), Complexity(SMALL, "macs").at("1MACs"), 3) == []


def test_the_command_line_goes_on_in_the_space_it_found(tmp_path):
    space = "expanded?stages=2&depth=4&width=8&stem=4&resolution=8&channels=1"
    sets = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    words = ["search", "network-space-search", "--space", space, "--budget", LIMIT, *sets, "--json"]
    runner = CliRunner()
    first = runner.invoke(app, [*words, "--run", str(tmp_path / "run"), "--store", str(tmp_path / "m.db")])
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout)
    assert result["space"]["space"] == "windows"
    assert result["measured"]["latency_ms"] > 0
    assert result["next"].startswith("sartor search lightnas --space")
    refused = runner.invoke(app, ["train", str(tmp_path / "run")])
    assert isinstance(refused.exception, UserError)
    assert "elite.json" in str(refused.exception)
    bench = ["bench", "space", str(tmp_path / "run"), "--networks", "10", "--epochs", "1", "--json"]
    told = runner.invoke(app, [*bench, "--run", str(tmp_path / "worth")])
    assert told.exit_code == 0, told.output
    rows = {row["of"]: row for row in json.loads(told.stdout)["rows"]}
    assert rows.keys() == {"all", "the space found", "RegNet's principle"}
    assert rows["all"]["networks"] == rows["RegNet's principle"]["networks"] == 10
    assert 0 < rows["all"]["hypervolume"] <= 1
    assert rows["all"]["draws"] > 1
    page = report([tmp_path / "run", tmp_path / "worth"], tmp_path / "page.html").read_text()
    assert "The space found" in page
    assert "What the space is worth" in page
