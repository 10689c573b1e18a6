"""SurgeNAS: every operator trains alike, one path at a time; identity mapping; beta or a budget."""

import itertools
import math
from collections import Counter
from pathlib import Path as File

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

import sartor
from sartor import spaces
from sartor.choose.relax import Relaxation
from sartor.core import Path, SearchSpace, Slot, Terms, TermScore, UserError, metric
from sartor.methods.surgenas import SurgeNAS, skips
from sartor.runs import Run
from sartor.spaces.complexity import Complexity
from sartor.supernet import IdentityMapping
from sartor.training.tasks import Classification
from tests.fakes import Grid, Ragged
from tests.test_one_idea import task_of

TINY = "mobilenet:tiny?width=0.4"
LONGER = {"epochs": 8, "warmup_epochs": 0, "batch_size": 16}


class Choices(SearchSpace):
    """Slots and nothing else."""

    def __init__(self, slots: int, candidates: int) -> None:
        self.slots = tuple(Slot(f"s{i}", tuple("abcdefgh"[:candidates])) for i in range(slots))

    def spec(self) -> dict:
        return {"space": "choices", "slots": [len(s) for s in self.slots]}

    def inputs(self, batch, arch=None):
        return ()

    def network(self, arch):
        return nn.Identity()


def relaxed(space: SearchSpace, logits: Tensor) -> Relaxation:
    relaxation = Relaxation(space, torch.Generator().manual_seed(0))
    with torch.no_grad():
        relaxation.logits.copy_(logits)
    return relaxation


def search(space: SearchSpace, task: Classification, run: File | None = None, **wanted):
    small = {"epochs": 3, "warmup_epochs": 1, "batch_size": 32}
    budget = wanted.pop("budget", ())
    objectives = wanted.pop("objectives", ())
    return sartor.search("surgenas", space, task, budget=budget, objectives=objectives, run=run, **{**small, **wanted})


# ---------------------------------------------------------------------- ordered sampling (Algorithm 1)


def test_paths_of_a_step_take_every_operator_once_and_follow_plackett_luce():
    logits = torch.tensor([[1.0, 0.0, -0.5], [0.0, 0.0, 0.0]])
    relaxation, generator = relaxed(Choices(2, 3), logits), torch.Generator().manual_seed(1)
    seen: list[Counter] = [Counter(), Counter()]
    draws = 4_000
    for _ in range(draws):
        paths = relaxation.ordered(1.0, generator)
        for layer in range(2):
            order = tuple(path.index[layer] for path in paths)
            assert sorted(order) == [0, 1, 2]
            seen[layer][order] += 1
    for layer, row in enumerate(torch.softmax(logits, 1).double().numpy()):
        orders = list(itertools.permutations(range(3)))
        chance = [row[a] * row[b] / (1 - row[a]) for a, b, _ in orders]
        counts = [seen[layer][order] for order in orders]
        assert chisquare(counts, np.array(chance) / sum(chance) * draws).pvalue > 1e-3


def test_extreme_logits_at_a_low_temperature_give_numbers():
    generator = torch.Generator().manual_seed(0)
    logits = 80.0 * torch.sign(torch.randn(6, 7, generator=generator))
    relaxation = relaxed(Choices(6, 7), logits)
    for _ in range(20):
        relaxation.zero_grad()
        paths = relaxation.ordered(1e-3, generator)
        torch.stack([g.square().sum() + g[0] for path in paths for g in path.gates]).sum().backward()
        assert all(torch.isfinite(gate).all() for path in paths for gate in path.gates)
        assert torch.isfinite(relaxation.logits.grad).all()


def test_the_last_path_moves_no_logit():
    relaxation = relaxed(Choices(4, 5), torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    *earlier, last = relaxation.ordered(1.0, torch.Generator().manual_seed(2))
    (slope,) = torch.autograd.grad(sum(g @ torch.arange(5.0) for g in last.gates), relaxation.logits, retain_graph=True)
    assert torch.equal(slope, torch.zeros_like(slope))
    (slope,) = torch.autograd.grad(sum(g @ torch.arange(5.0) for g in earlier[0].gates), relaxation.logits)
    assert (slope != 0).all()


def test_the_gradient_is_that_of_the_soft_samples():
    logits = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.5, -0.4]], dtype=torch.float64)
    weight = torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64)

    def soft(values: Tensor, order: list[tuple[int, ...]]) -> Tensor:
        """Sum over paths of the soft samples of Algorithm 1 with the same noise and the same choices."""
        generator, total = torch.Generator().manual_seed(5), values.new_zeros(())
        used = torch.zeros(2, 3, dtype=torch.bool)
        for index in order:
            p = torch.log_softmax(values.masked_fill(used, -torch.inf), 1)
            noise = -torch.empty(p.shape).exponential_(generator=generator).log().double()
            total = total + (torch.softmax((p + noise) / 0.8, 1) * weight).sum()
            used = used.scatter(1, torch.tensor(index)[:, None], True)
        return total

    relaxation = relaxed(Choices(2, 3), logits).double()
    paths = relaxation.ordered(0.8, torch.Generator().manual_seed(5))
    sum(g @ weight for path in paths for g in path.gates).backward()
    order, step = [path.index for path in paths], 1e-6
    for at in itertools.product(range(2), range(3)):
        moved = [logits.clone() for _ in range(2)]
        moved[0][at] += step
        moved[1][at] -= step
        slope = (soft(moved[0], order) - soft(moved[1], order)) / (2 * step)
        assert float(relaxation.logits.grad[at]) == pytest.approx(float(slope), abs=1e-5)


# ---------------------------------------------------------------------- a search


def test_every_operator_of_every_layer_runs_once_a_step(monkeypatch):
    space, ran = spaces.get(TINY), Counter()
    original = space.supernet

    def counted():
        supernet = original()
        for slot, column in zip(supernet.slots, supernet.columns):
            for k, module in enumerate(column if slot is not None else ()):
                module.register_forward_hook(lambda *_, at=(slot, k): ran.update([at]))
        return supernet

    monkeypatch.setattr(space, "supernet", counted)
    search(space, task_of("mobilenet:tiny"), beta=0.0, identity=0.0)
    steps = 3 * (96 // 32)
    assert set(ran.values()) == {steps}
    assert len(ran) == sum(map(len, space.slots))


def test_the_weights_of_all_paths_train_also_those_of_the_last(tmp_path):
    space, task = spaces.get(TINY), task_of("mobilenet:tiny")
    with Run(tmp_path / "run", {"test": "weights"}, 0) as run:
        search(space, task, run, beta=0.0, epochs=2, warmup_epochs=1, batch_size=96)
        state = torch.load(run.path / "search/checkpoint.pt", weights_only=True)["state"]["trained"]
        torch.manual_seed(run.stage("search").torch_seed("weights"))
        fresh = space.supernet().state_dict()
    for name, before in fresh.items():
        if name.startswith("columns") and name.endswith("weight"):
            assert not torch.equal(state[f"0.{name}"], before), name


def test_the_identity_is_added_once_a_layer_and_ends_at_zero(tmp_path):
    space = spaces.get(TINY)
    supernet = space.supernet()
    identity = IdentityMapping(space, supernet)
    identity.phi = 1.5
    x = torch.randn(2, 4, 6, 6)
    kept = next(i for i, way in identity.kept.items() if isinstance(way, nn.Identity))
    assert torch.equal(identity(int(kept), x, torch.zeros_like(x)), 1.5 * x)
    assert any(isinstance(way, nn.Sequential) for way in identity.kept.values())
    arch = space.sample(np.random.default_rng(0), 1)[0]
    plain, around = supernet.eval()(*space.inputs(2), path=Path(arch)), supernet.train()
    assert around(*space.inputs(2), path=Path(arch, None, identity)).shape == plain.shape
    with Run(tmp_path / "run", {"test": "identity"}, 0) as run:
        search(space, task_of("mobilenet:tiny"), run, beta=0.0)
        journal = run.stage("search").journal()
    assert [line["identity"] for line in journal] == [2.0, 1.0, 0.0]
    assert [line["of"] for line in journal] == ["warm-up", "search", "search"]
    assert [line["temperature"] for line in journal[:2]] == [1.0, 1.0]


def test_in_cells_the_identity_is_added_once_a_cell_and_stays_within_floats():
    cells = spaces.get("nas-bench-201?width=4&cells=5&resolution=8&classes=5")
    supernet = cells.supernet().train()
    identity = IdentityMapping(cells, supernet)
    assert list(identity.kept) == ["5"]  # the last edge stands for the cell
    identity.phi = 2.0
    (cell,) = [m for m in supernet.modules() if type(m).__name__ == "MixedCell"][:1]
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(cell(x, Path((0,) * 6, None, identity)), 2.0 * x)  # nothing on any edge
    for k in (1, 3):  # skips, which norms never see, and convolutions
        gates = tuple(torch.ones(5, requires_grad=True) for _ in range(6))
        supernet(*cells.inputs(4), path=Path((k,) * 6, gates, identity)).square().sum().backward()
        assert all(torch.isfinite(gate.grad[k]) and gate.grad[k] != 0 for gate in gates)
    assert all(torch.isfinite(b).all() for b in supernet.buffers())


def test_none_is_not_chosen_without_a_cost_unless_as_published():
    space, task = spaces.get("nas-bench-201?width=4&cells=1&resolution=8&classes=5"), task_of("nas-bench-201")
    for seed in range(3):
        found = sartor.search("surgenas", space, task, budget=[], seed=seed, beta=0.0, epochs=2, warmup_epochs=1)
        assert 0 not in found.architecture
    relaxation = relaxed(space, torch.tensor([[3.0, 2.0, 0.0, 1.0, 0.0]] * 6))
    assert relaxation.argmax() == (0,) * 6
    assert relaxation.argmax("none") == (1,) * 6
    assert (SurgeNAS.paper(beta=0.0).none, SurgeNAS(beta=0.0).none) == (True, False)


def test_a_huge_beta_gives_the_network_of_skips_and_says_so(caplog):
    space = spaces.get(TINY)
    found = search(space, task_of("mobilenet:tiny"), beta=1e6, objectives=[Complexity(space, "macs")], **LONGER)
    assert skips(space, found.architecture) == len(space.slots) == found.extras["skips"]
    assert "collapsed" in caplog.text
    assert found.winner.predicted["macs"] == Complexity(space, "macs")([found.architecture])[0]


def test_the_cost_falls_as_beta_grows():
    space, task = spaces.get(TINY), task_of("mobilenet:tiny")
    macs = Complexity(space, "macs").terms()
    cost = TermScore(space, metric("latency_ms"), Terms(0.0, tuple(u / 1e5 for u in macs.unary)))
    costs = [
        search(space, task, beta=b, objectives=[cost], **LONGER).winner.predicted["latency_ms"] for b in (0, 0.1, 10)
    ]
    # the two that weigh it end among the smallest networks, in an order that rounding decides
    assert max(costs[1:]) < costs[0] / 2


def test_what_is_asked_of_it_must_fit():
    space, task = spaces.get(TINY), task_of("mobilenet:tiny")
    macs = Complexity(space, "macs")
    for wanted, said in (
        ({}, "needs a budget"),
        ({"beta": 0.1, "budget": macs.at("1MMACs")}, "give one of them"),
        ({"beta": 0.1, "epochs": 2, "warmup_epochs": 2}, "trains no logits"),
        ({"beta": -1.0}, "beta"),
    ):
        with pytest.raises(UserError) as refused:
            search(space, task, **wanted)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="has none"):
        SurgeNAS(beta=0.0).check(Grid(), [])


def test_published_values_are_the_defaults():
    paper = SurgeNAS.paper()
    assert (paper.epochs, paper.warmup_epochs, paper.batch_size, paper.lr, paper.arch_lr) == (75, 25, 232, 0.1, 7.5e-4)
    assert (paper.weight_decay, paper.arch_weight_decay, paper.identity, paper.clip_norm) == (3e-5, 1e-3, 2.0, 5.0)
    assert math.isclose(paper.temperature, 1.0)


def test_a_cost_that_nothing_would_weigh_is_refused(tmp_path):
    space = spaces.get(TINY)
    cost = Complexity(space, "macs")
    with pytest.raises(UserError, match="beta=3 has no cost to weigh"):
        search(space, task_of("mobilenet:tiny"), beta=3.0)
    with pytest.raises(UserError, match="not both"):
        search(space, task_of("mobilenet:tiny"), budget=cost.at("0.2MMACs"), objectives=[cost])


def test_two_budgets_on_one_metric_are_refused():
    space = spaces.get(TINY)
    cost = Complexity(space, "macs")
    with pytest.raises(UserError, match="2 budgets on macs"):
        search(space, task_of("mobilenet:tiny"), budget=[cost.at("0.2MMACs"), cost.at("0.3MMACs")])


def test_a_slot_that_hangs_on_another_uses_up_only_candidates_that_ran():
    space = Ragged()
    relaxation = Relaxation(space, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    for _ in range(50):
        paths = [path.index for path in relaxation.ordered(1.0, draws)]
        for i in range(len(space.slots)):
            ran = [index[i] for index in paths if space.active(index)[i]]
            rounds = Counter(ran)
            assert (
                max(rounds.values(), default=0) - min((rounds[k] for k in range(len(space.slots[i]))), default=0) <= 1
            )
