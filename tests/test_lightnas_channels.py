"""LightNAS++: what a search by early training keeps to, whatever space it is in."""

from __future__ import annotations

import numpy as np
import pytest

import sartor
from sartor import spaces, tasks
from sartor.core import METRICS, Budget, FunctionScore, UserError
from sartor.methods import METHODS
from sartor.runs import Run
from sartor.spaces.channels import Channels
from sartor.spaces.complexity import Complexity
from tests.fakes import Grid, additive

TINY = spaces.get("mobilenet:tiny?width=0.34")
QUICK = {"epochs": 2, "batches": 2, "batch_size": 32, "iterations": 3, "population": 6, "keep": 3, "tolerance": 0.05}


@pytest.fixture(scope="module")
def space() -> Channels:
    return Channels(TINY, (0, 1, 6, 2, 3, 6, 4, 5, 0))


def budget(space: Channels, share: float = 1.0) -> Budget:
    macs = Complexity(space, "macs")
    return Budget(macs, share * float(macs([space.unscaled])[0]))


def test_every_generation_lands_and_the_best_is_never_worse(space, tmp_path) -> None:
    limit = budget(space)
    with Run(tmp_path / "run", {"test": 1}) as run:
        found = sartor.search("lightnas-channels", space, tasks.get("digits"), budget=limit, run=run, **QUICK)
        journal = run.stage("search").journal()
    assert [line["generation"] for line in journal] == [0, 1, 2]
    for line in journal:
        costs = limit.score([tuple(arch) for arch in line["members"]])
        assert len(costs) == 6
        assert ((costs >= 0.95 * limit.limit * (1 - 1e-9)) & (costs <= limit.limit * (1 + 1e-9))).all()
    best = [line["best"] for line in journal]
    assert best == sorted(best)
    assert found.feasible
    assert found.extras["score"] == best[-1]
    assert found.extras["score"] >= (found.extras["unrefined"] or -np.inf)
    assert list(space.unscaled) in journal[0]["members"]


def test_a_search_that_was_killed_ends_the_same(space, tmp_path, monkeypatch) -> None:
    limit, task = budget(space, 0.9), tasks.get("digits")
    with Run(tmp_path / "whole", {"test": 1}) as run:
        whole = sartor.search("lightnas-channels", space, task, budget=limit, run=run, **QUICK)
        journal = run.stage("search").journal()
    from sartor.quality import proxies

    asked, answer = [], proxies.ProxyScore._one

    def dies(self, arch):
        asked.append(arch)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return answer(self, arch)

    monkeypatch.setattr(proxies.ProxyScore, "_one", dies)
    for _ in range(2):
        try:
            with Run(tmp_path / "killed", {"test": 1}) as run:
                again = sartor.search("lightnas-channels", space, task, budget=limit, run=run, **QUICK)
                resumed = run.stage("search").journal()
        except KeyboardInterrupt:
            continue
    assert again.architecture == whole.architecture
    assert resumed == journal
    assert len(set(asked)) == len(asked) - 1  # what had an answer was not paid for again


def test_several_processes_answer_the_same(space, tmp_path) -> None:
    task, found = tasks.get("digits"), []
    for workers in (1, 2):
        settings = {**QUICK, "iterations": 1, "workers": workers, "proxy": "tse"}
        with Run(tmp_path / str(workers), {"test": 1}) as run:
            found.append(
                sartor.search("lightnas-channels", space, task, budget=budget(space), run=run, **settings).extras
            )
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_any_score_of_any_space_can_be_maximised() -> None:
    space = Grid(8, 4)
    quality = FunctionScore(space, METRICS["accuracy"], lambda s, arch: float(sum(arch)))
    cost = additive(space, 3)
    limit = Budget(cost, float(np.median(cost(space.sample(np.random.default_rng(0), 200)))))
    found = sartor.search("lightnas-channels", space, None, budget=limit, objectives=[quality])
    assert found.feasible
    rivals = [a for a in space.sample(np.random.default_rng(1), 2000) if limit.lands(float(cost([a])[0]))]
    assert sum(found.architecture) >= max(map(sum, rivals))


def test_what_is_refused(space) -> None:
    with pytest.raises(UserError, match="needs a budget"):
        METHODS["lightnas-channels"].of({}).check(space, [])
    with pytest.raises(UserError, match="leaves no child"):
        sartor.search("lightnas-channels", space, tasks.get("digits"), budget=budget(space), population=4, keep=4)
    with pytest.raises(UserError, match="trains on data"):
        sartor.search("lightnas-channels", space, None, budget=budget(space))
