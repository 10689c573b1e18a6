"""Pairwise ridge, support vectors and graph networks: what they learn, what they see, and when they step back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.core import F, SearchSpace, UserError
from sartor.predictors import Predictor
from sartor.predictors.gnn import GCN, GNN, PlainGNN
from sartor.predictors.gp import GP
from sartor.predictors.pairs import Pairs, _left_out
from sartor.predictors.ridge import Ridge
from sartor.predictors.svm import SVM
from sartor.predictors.views import soft_views, views
from sartor.spaces.mobilenetv3 import MobileNetV3
from sartor.spaces.nasbench201 import EDGES, NASBench201
from sartor.workflow import fitting
from tests.contracts.scores import check_round_trip, check_score
from tests.fakes import LATENCY, Curved, Grid, Ragged, additive, pairwise

CELLS = NASBench201()
CELL = st.tuples(*[st.integers(0, 4)] * 6)


def small(kind: type[GNN]) -> Callable[[], GNN]:
    return lambda: kind(width=8, layers=2, epochs=4)


MAKERS: dict[str, Callable[[], Predictor]] = {
    "pairs": Pairs,
    "svm": lambda: SVM(epsilon=0.1),
    "gp": lambda: GP(steps=10),
    "gnn": small(GNN),
    "gnn-plain": small(PlainGNN),
    "gcn": small(GCN),
    "gnn without ridge": lambda: GNN(width=8, epochs=4, residual=False),
}


@pytest.mark.parametrize("name", list(MAKERS))
def test_gates_may_lie_on_another_device(name: str) -> None:
    """As on an accelerator: `meta` tensors refuse to meet others."""
    space = Grid(4, 3)
    archs = space.sample(np.random.default_rng(0), 30)
    fitted = MAKERS[name]().fit(space, archs, additive(space)(archs), metric=LATENCY)
    gates = tuple(torch.full((3,), 1 / 3, device="meta") for _ in space.slots)
    assert fitted.soft(gates).device.type == "meta"


def rmse(
    predictor: Predictor, space: SearchSpace, train: int, truth: Callable[[object], F], noise: float = 0.0
) -> float:
    rng = np.random.default_rng(0)
    archs, unseen = space.sample(rng, train), space.sample(rng, 400)
    predictor.fit(space, archs, truth(archs) + noise * rng.normal(size=train), metric=LATENCY)
    return float(np.sqrt(np.mean((predictor(unseen) - truth(unseen)) ** 2)))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "space", [Ragged(), Ragged().restrict({0: [2, 1], 2: [3, 0]}), CELLS], ids=["ragged", "window", "cells"]
)
def test_each_is_a_score_and_survives_saving(name: str, space: SearchSpace, tmp_path: Path) -> None:
    archs = space.sample(np.random.default_rng(7), 60)
    values = Curved(space)(archs)
    values[3] = np.nan
    predictor, again = (
        MAKERS[name]().fit(space, archs, values, metric=LATENCY, target_id="fake device") for _ in range(2)
    )
    check_score(predictor, space)
    check_round_trip(predictor, tmp_path / "p.safetensors", space, "fake device")
    np.testing.assert_array_equal(again(archs), predictor(archs))
    logits = [torch.zeros(len(slot), requires_grad=True) for slot in space.slots]
    predictor.soft(tuple(one.softmax(0) for one in logits)).backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in logits if len(one) > 1)


# ---------------------------------------------------------------------- what is executed


@given(CELL)
@settings(deadline=None)
def test_executed_are_the_operators_on_a_way_to_the_output(arch: tuple[int, ...]) -> None:
    leads = {3}
    for node in (2, 1):
        leads |= {node for k, (source, end) in zip(arch, EDGES) if source == node and end in leads and k > 0}
    expected = [np.eye(5)[k][1:] * (end in leads) for k, (_, end) in zip(arch, EDGES)]
    np.testing.assert_array_equal(np.concatenate(views(CELLS, [arch])[1], axis=1)[0], np.concatenate(expected))
    gates = tuple(torch.eye(5)[k] for k in arch)
    np.testing.assert_array_equal(torch.cat(soft_views(CELLS, gates)[1]).numpy(), np.concatenate(expected))


def test_a_cost_of_what_is_executed_is_learnt_and_has_no_terms() -> None:
    prices = np.random.default_rng(0).uniform(0.5, 2.0, 24)

    def truth(archs: object) -> F:
        return 1.0 + np.concatenate(views(CELLS, archs)[1], axis=1) @ prices  # type: ignore[arg-type]

    pairs = Pairs()
    assert rmse(pairs, CELLS, 300, truth) < 0.05 * rmse(Ridge(), CELLS, 300, truth)
    assert pairs.terms() is None
    assert rmse(SVM(), CELLS, 300, truth) < 0.7 * rmse(Ridge(), CELLS, 300, truth)
    plain = Pairs()
    rmse(plain, CELLS, 300, additive(CELLS), noise=0.1)
    assert plain.stats["weights"][1:] == [0.0] * 4
    assert plain.terms() is not None


# ---------------------------------------------------------------------- pairs


def test_pairs_recover_a_pairwise_cost() -> None:
    space = Grid(5, 3)
    error = rmse(Pairs(), space, 180, pairwise(space))
    assert error < 0.01 * rmse(Ridge(), space, 180, pairwise(space))


@pytest.mark.parametrize(("space", "train"), [(Grid(6, 5), 10), (Grid(6, 5), 100), (Grid(21, 7), 200)])
def test_pairs_are_no_worse_than_ridge_where_there_is_nothing_to_gain(space: SearchSpace, train: int) -> None:
    ridge, pairs = (rmse(p, space, train, additive(space), noise=0.3) for p in (Ridge(), Pairs()))
    assert pairs < 1.1 * ridge


def test_thousands_of_candidates_a_slot_are_learnt_but_their_products_not_written_out() -> None:
    space, rng = MobileNetV3(), np.random.default_rng(0)
    archs = space.sample(rng, 60)
    pairs = Pairs((1.0, 1.0)).fit(space, archs, rng.normal(size=60), metric=LATENCY)
    assert pairs.terms() is None
    assert np.isfinite(pairs(archs)).all()


def test_the_left_out_error_is_what_leaving_out_gives() -> None:
    space, rng = Grid(4, 3), np.random.default_rng(0)
    archs = space.sample(rng, 40)
    values = pairwise(space)(archs) + rng.normal(0, 0.1, 40)
    all_of_them = Pairs((3.0, 1.0)).fit(space, archs, values, metric=LATENCY)
    errors = []
    for i in range(40):
        rest = [j for j in range(40) if j != i]
        one = Pairs((3.0, 1.0)).fit(space, [archs[j] for j in rest], values[rest], metric=LATENCY)
        errors.append(one([archs[i]])[0] - values[i])
    assert all_of_them.stats["rmse_leave_one_out"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.05)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_gradient_of_the_left_out_error(logs: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grams = [x @ x.T for x in rng.normal(size=(3, 12, 5))]
    y, at = rng.normal(size=12), np.array(logs)
    _, gradient = _left_out(at, grams, y)
    steps = 1e-5 * np.eye(3)
    numeric = [(_left_out(at + s, grams, y)[0] - _left_out(at - s, grams, y)[0]) / 2e-5 for s in steps]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------- graph networks


class Backwards(Grid):
    """The same slots, each feeding the one before it."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return tuple((j, i) for i, j in super().edges)


@pytest.mark.parametrize("kind", [GNN, PlainGNN, GCN])
def test_reversed_edges_and_exchanged_directions_are_the_same_network(kind: type[GNN]) -> None:
    space, back = Grid(5, 3), Backwards(5, 3)
    archs = space.sample(np.random.default_rng(0), 60)
    one, two = (
        kind(width=8, epochs=4, residual=False).fit(s, archs, Curved(space)(archs), metric=LATENCY)
        for s in (space, back)
    )
    arrays = one._arrays()
    if kind.directed:
        assert not np.allclose(one(archs), two(archs))
        changed = {
            name.replace(f".{way}.{d}.", f".{way}.{1 - d}."): array
            for name, array in arrays.items()
            for way in ("ways", "gates")
            for d in (0, 1)
            if f".{way}.{d}." in name
        }
        arrays |= changed
    two._restore(arrays)
    np.testing.assert_allclose(two(archs), one(archs), rtol=1e-12)


def test_attention_depends_on_the_operator() -> None:
    space = Grid(5, 3)
    archs = space.sample(np.random.default_rng(0), 60)
    gnn, plain = (small(k)().fit(space, archs, Curved(space)(archs), metric=LATENCY) for k in (GNN, PlainGNN))
    gates = {name: a for name, a in gnn._arrays().items() if ".gates." in name}
    assert {a.shape for name, a in gates.items() if name.endswith("weight")} == {(1, 3)}
    assert len(gates) == 2 * 2 * 2
    assert not any(".gates." in name for name in plain._arrays())


def test_a_graph_network_learns_what_neighbours_cost_together() -> None:
    space, alone = Grid(5, 3), additive(Grid(5, 3))

    def truth(archs: object) -> F:
        index = np.asarray(archs, float)
        return alone(archs) + 0.2 * (index[:, 1:] * index[:, :-1]).sum(axis=1)  # type: ignore[arg-type]

    ridge, gnn = (rmse(p, space, 400, truth) for p in (Ridge(), GNN(width=32, epochs=30, lr=5e-3)))
    assert gnn < 0.2 * ridge
    assert gnn < 0.01 * truth(space.sample(np.random.default_rng(0), 100)).mean()


def test_published_hyper_parameters() -> None:
    paper = GNN.paper(seed=3).hyper()
    assert (paper["layers"], paper["width"], paper["lr"], paper["batch"]) == (3, 128, 1e-3, 8)
    assert (paper["validation"], paper["residual"], paper["seed"]) == (0.1, False, 3)


# ---------------------------------------------------------------------- support vectors


def test_svm_learns_interactions_and_takes_what_it_is_given() -> None:
    space = Grid(5, 3)
    assert rmse(SVM(), space, 150, pairwise(space)) < 0.5 * rmse(Ridge(), space, 150, pairwise(space))
    archs = space.sample(np.random.default_rng(0), 50)
    svm = SVM(width=2.0, cost=5.0, epsilon=0.3).fit(space, archs, additive(space)(archs), metric=LATENCY)
    assert (svm.stats["width"], svm.stats["cost"], svm.stats["epsilon"]) == (2.0, 5.0, 0.3)


def test_a_gaussian_process_finds_the_slots_that_matter_and_what_is_noise() -> None:
    space, rng = Grid(8, 3), np.random.default_rng(0)

    def few(archs: object) -> F:
        index = np.asarray(archs)
        return np.cos(2.0 * index[:, 0] + index[:, 1] * index[:, 2])

    gp, svm = GP(), SVM()
    assert rmse(gp, space, 200, few, noise=0.1) < 0.5 * rmse(svm, space, 200, few, noise=0.1)
    assert gp.stats["noise"] == pytest.approx(0.1, rel=0.3)
    ridge, learnt = (rmse(p, Grid(21, 7), 200, additive(Grid(21, 7)), noise=0.3) for p in (Ridge(), GP()))
    assert learnt < 1.1 * ridge
    same = GP().fit(space, space.sample(rng, 20), np.ones(20), metric=LATENCY)
    assert same(space.sample(rng, 5)) == pytest.approx(np.ones(5))


# ---------------------------------------------------------------------- choosing among them


def test_auto_is_quick_and_all_is_all() -> None:
    assert fitting.compared("auto", Grid(21, 7), 2000) == ["ridge", "mlp"]
    assert fitting.compared("auto", Grid(9, 7), 2000) == ["ridge", "pairs", "mlp"]
    assert fitting.compared("auto", CELLS, 100) == ["ridge", "pairs", "mlp"]
    assert fitting.compared("gcn", CELLS, 100) == ["ridge", "gcn"]
    everything = {"ridge", "pairs", "mlp", "svm", "gp", "gnn", "gnn-plain", "gcn"}
    assert set(fitting.compared("all", CELLS, 100)) == everything
    assert set(fitting.compared("all", Ragged(), 100)) == everything | {"lookup"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pairs((1.0,)),
        lambda: Pairs((1.0, -1.0)),
        lambda: Pairs((1.0, 1.0)).fit(CELLS, [(0,) * 6] * 2, [1.0, 2.0], metric=LATENCY),
        lambda: SVM(cost=0.0),
        lambda: GP(steps=0),
        lambda: GNN(epochs=0),
        lambda: GCN(validation=1.0),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(make: Callable[[], Predictor]) -> None:
    with pytest.raises(UserError):
        make()
