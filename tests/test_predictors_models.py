"""Ridge, lookup and MLP: what they learn, refuse, save and load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sartor.core import SearchSpace, UserError, metric
from sartor.predictors import PREDICTORS, Predictor, load, read_header
from sartor.predictors.lookup import Lookup
from sartor.predictors.mlp import MLP
from sartor.predictors.ridge import Ridge
from tests.contracts.scores import check_round_trip, check_score
from tests.fakes import LATENCY, Curved, Forest, Grid, Ragged, additive, pairwise

PARTS = {f"op{k}-4": 0.5 + k for k in range(4)} | {"stem-4": 2.0, "head-4": 1.0}


def quick(**options: object) -> MLP:
    return MLP(**{"hidden": (16, 8), "epochs": 10, **options})  # type: ignore[arg-type]


def makers() -> dict[str, object]:
    return {
        "ridge": Ridge,
        "lookup": lambda: Lookup(PARTS),
        "mlp": quick,
        "mlp as published": lambda: quick(residual=False, early_stopping=False),
    }


def fitted(make, space: SearchSpace, n: int = 60) -> Predictor:  # type: ignore[no-untyped-def]
    archs = space.sample(np.random.default_rng(7), n)
    values = Curved(space)(archs)
    values[3] = np.nan
    predictor: Predictor = make().fit(space, archs, values, metric=LATENCY, target_id="fake device")
    return predictor


@pytest.mark.parametrize("name", makers())
@pytest.mark.parametrize("space", [Ragged(), Ragged().restrict({0: [2, 1], 2: [3, 0]})], ids=["ragged", "window"])
def test_every_predictor_is_a_score_and_survives_saving(name: str, space: SearchSpace, tmp_path: Path) -> None:
    predictor = fitted(makers()[name], space)
    check_score(predictor, space)
    check_round_trip(predictor, tmp_path / "p.safetensors", space, "fake device")
    assert predictor.stats["train"] == 59
    assert predictor.stats["dropped"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]
    assert load(tmp_path / "p.safetensors", space=space).key == predictor.key
    again = fitted(makers()[name], space)
    archs = space.sample(np.random.default_rng(9), 5)
    np.testing.assert_array_equal(again(archs), predictor(archs))


@pytest.mark.parametrize(
    "space", [Grid(6, 4), Forest([replace(s, features=None) for s in Ragged.slots])], ids=["grid", "conditional"]
)
def test_ridge_recovers_an_additive_cost(space: SearchSpace) -> None:
    truth, archs = additive(space), space.sample(np.random.default_rng(0), 200)
    ridge = Ridge().fit(space, archs, truth(archs), metric=LATENCY)
    unseen = space.sample(np.random.default_rng(1), 200)
    np.testing.assert_allclose(ridge(unseen), truth(unseen), rtol=1e-4)


def test_ridge_picks_its_strength_by_leave_one_out() -> None:
    space, rng = Grid(8, 5), np.random.default_rng(0)
    archs = space.sample(rng, 60)
    values = additive(space)(archs) + rng.normal(0, 1.0, 60)
    chosen = Ridge().fit(space, archs, values, metric=LATENCY)
    left_out = []
    for i in range(60):
        rest = [j for j in range(60) if j != i]
        one = Ridge(chosen.stats["strength"]).fit(space, [archs[j] for j in rest], values[rest], metric=LATENCY)
        left_out.append(one([archs[i]])[0] - values[i])
    assert chosen.stats["rmse_leave_one_out"] == pytest.approx(np.sqrt(np.mean(np.square(left_out))), rel=0.02)
    unseen = space.sample(rng, 500)
    error = [
        np.mean((Ridge(s).fit(space, archs, values, metric=LATENCY)(unseen) - additive(space)(unseen)) ** 2)
        for s in (1e-8, chosen.stats["strength"])
    ]
    assert error[1] < error[0]


def test_ridge_sees_features() -> None:
    space = Ragged()
    archs = space.sample(np.random.default_rng(0), 200)
    columns = np.array(Ridge().fit(space, archs, pairwise(space)(archs), metric=LATENCY).terms().unary[2])
    # candidates (1, 1), (3, 1), (0, 0), (5, 0): kernel and existence, two numbers for four candidates
    assert columns[2] == pytest.approx(0.0, abs=1e-9)
    assert columns[1] - columns[0] == pytest.approx(columns[3] * 2 / 5)


def test_lookup_adds_parts_up_and_removes_the_bias() -> None:
    space = Ragged()
    archs = list(space.enumerate())
    plain = np.array([sum(PARTS[p.key] for p in space.parts(a)) for a in archs])
    bare = Lookup(PARTS, intercept=False).fit(space, archs, plain + 5, metric=LATENCY)
    np.testing.assert_allclose(bare(archs), plain)
    assert bare.stats["bias"] == pytest.approx(5.0)
    corrected = Lookup(lambda key: PARTS[key]).fit(space, archs, plain + 5, metric=LATENCY)
    np.testing.assert_allclose(corrected(archs), plain + 5)


@pytest.mark.parametrize(("parts", "says"), [({}, "no cost"), (dict.fromkeys(PARTS, float("nan")), "measured")])
def test_lookup_needs_every_part(parts: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Lookup(parts).fit(Ragged(), [(0, 0, 0, 0, 0)] * 2, [1.0, 2.0], metric=LATENCY)
    with pytest.raises(UserError, match="one choice alone"):
        Lookup(PARTS).fit(Grid(), [(0,) * 4] * 2, [1.0, 2.0], metric=LATENCY)


def test_mlp_learns_what_ridge_cannot_and_is_no_worse_where_there_is_nothing_to_learn() -> None:
    space, rng = Grid(6, 4), np.random.default_rng(0)
    archs, unseen = space.sample(rng, 600), space.sample(rng, 400)

    def plain() -> MLP:
        return MLP(epochs=60, residual=False, early_stopping=False)

    def rmse(predictor: Predictor, values: np.ndarray, truth: np.ndarray) -> float:
        predictor.fit(space, archs, values, metric=LATENCY)
        return float(np.sqrt(np.mean((predictor(unseen) - truth) ** 2)))

    bent = pairwise(space)
    ridge, mlp, alone = (rmse(p, bent(archs), bent(unseen)) for p in (Ridge(), MLP(epochs=60), plain()))
    assert mlp < 0.75 * ridge
    assert alone < ridge
    flat = additive(space)
    noisy = flat(archs) + rng.normal(0, 1.0, len(archs))
    ridge, mlp, alone = (rmse(p, noisy, flat(unseen)) for p in (Ridge(), MLP(epochs=60), plain()))
    assert mlp < ridge + 0.1
    assert mlp < alone


def test_mlp_has_a_useful_gradient() -> None:
    space = Grid(4, 3)
    mlp = fitted(quick, space)
    logits = torch.zeros(4, 3, requires_grad=True)
    mlp.soft(tuple(logits.softmax(1))).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_published_hyper_parameters() -> None:
    paper = MLP.paper(seed=3).hyper()
    assert paper["hidden"] == [128, 64]
    assert (paper["lr"], paper["batch"], paper["epochs"], paper["validation"]) == (1e-3, 64, 200, 0.2)
    assert (paper["residual"], paper["early_stopping"], paper["weight_decay"], paper["seed"]) == (False, False, 0.0, 3)


@pytest.mark.parametrize("make", [lambda: MLP(epochs=0), lambda: MLP(validation=1.0), lambda: Ridge(-1.0)])
def test_hyper_parameters_out_of_range_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        make()


def test_bad_fits_are_one_line() -> None:
    space = Grid()
    with pytest.raises(UserError, match="not fitted"):
        Ridge()([(0, 0, 0, 0)])
    with pytest.raises(UserError, match="one value for each"):
        Ridge().fit(space, [(0, 0, 0, 0)], [1.0, 2.0], metric=LATENCY)
    with pytest.raises(UserError, match="only 1 of 2"):
        Ridge().fit(space, [(0, 0, 0, 0)] * 2, [1.0, float("nan")], metric=LATENCY)
    with pytest.raises(UserError, match="ridge"):
        PREDICTORS.make("rigde")
    with pytest.raises(UserError, match="strength"):
        PREDICTORS.make("ridge", strong=1.0)


def test_loading_for_something_else_is_refused(tmp_path: Path) -> None:
    space, path = Grid(), tmp_path / "p.safetensors"
    predictor = fitted(Ridge, space)
    predictor.save(path)
    assert read_header(path)["space"] == space.spec()
    with pytest.raises(UserError, match="fitted on space"):
        load(path, space=Grid(5, 3))
    with pytest.raises(UserError, match="fitted on target 'fake device', not on 'other'"):
        load(path, space=space, target_id="other")
    with pytest.raises(UserError, match="safetensors"):
        predictor.save(tmp_path / "p.pkl")
    with pytest.raises(UserError, match="there is no predictor"):
        load(tmp_path / "q.safetensors", space=space)
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:40], b"", b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            load(path, space=space)
    for header, says in (({"schema": 99}, "schema 99"), ({"schema": 1, "predictor": "ridge"}, "lacks hyper")):
        save_file({"x": np.zeros(1)}, path, metadata={"sartor": json.dumps(header)})
        with pytest.raises(UserError, match=says):
            load(path, space=space)


def test_a_budget_on_a_predictor_is_typed_with_its_unit() -> None:
    ridge = Ridge().fit(Grid(), Grid().sample(np.random.default_rng(0), 9), np.arange(9.0), metric=metric("energy_mj"))
    assert ridge.at("1.5J").limit == 1500
    with pytest.raises(UserError, match="energy_mj"):
        ridge.at("20ms")
