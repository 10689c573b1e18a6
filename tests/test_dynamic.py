"""Networks that exchange blocks: which are kept, what the tables find, what the controller does, what is deployed."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sartor
from sartor import spaces, tasks
from sartor.cli import app
from sartor.core import METRICS, Terms, UserError
from sartor.core import Path as NetworkPath
from sartor.core.restricted import Restricted
from sartor.dynamic import build
from sartor.dynamic.blocks import Bank, pareto
from sartor.dynamic.controller import DynamicNetwork, Tables
from sartor.methods.mathnas import MathNAS
from sartor.spaces.complexity import Complexity

LATENCY = ((1.0, 2.0, 4.0), (1.0, 1.5, 3.0), (0.5, 1.0, 2.0))
WORTH = ((1.0, 3.0, 4.0), (0.0, 1.0, 5.0), (0.0, 2.0, 2.5))

# ---------------------------------------------------------------------- which blocks


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30), st.integers(2, 6), st.data()
)
def test_kept_blocks_are_not_beaten_hold_both_ends_and_the_own(
    pairs: list[tuple[int, int]], most: int, data: st.DataObject
) -> None:
    worse, cost = np.array(pairs, dtype=float).T
    own = data.draw(st.integers(0, len(pairs) - 1))
    kept = pareto(worse, cost, most, own)
    assert len(set(kept)) == len(kept)
    assert len(kept) <= max(most, 3)
    assert own in kept
    assert list(cost[list(kept)]) == sorted(cost[list(kept)])
    for k in set(kept) - {own}:
        assert not np.any((cost <= cost[k]) & (worse <= worse[k]) & ((cost < cost[k]) | (worse < worse[k])))
    assert cost[list(kept)].min() == cost.min()  # the fastest
    assert worse[list(kept)].min() == worse.min()  # the best


# ---------------------------------------------------------------------- tables


numbers = st.floats(0.01, 10.0)


@given(st.data())
def test_the_best_of_the_tables_is_that_of_all_networks(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))

    def sums(const: float = 0.0) -> dict[str, Any]:
        return {"const": const, "blocks": [data.draw(st.lists(numbers, min_size=n, max_size=n)) for n in sizes]}

    ratio, better = data.draw(st.booleans()), data.draw(st.sampled_from(["more", "less"]))
    tables = Tables(
        {
            "better": better,
            "latency_ms": sums(1.0),
            "quality": {**sums(), "over": sums(0.5) if ratio else None},
        }
    )
    everything = list(product(*map(range, sizes)))
    limit = data.draw(st.sampled_from([tables.latency(c) for c in everything])) * data.draw(st.floats(0.9, 1.1))
    found = tables.best(limit * (1 + 1e-9))  # sums in another order differ in the last digit
    within = [c for c in everything if tables.latency(c) <= limit * (1 + 1e-9)]
    if not within:
        assert found is None
        return
    assert found is not None
    assert tables.latency(found) <= limit * (1 + 2e-9)
    pick = max if better == "more" else min
    assert tables.quality(found) == pytest.approx(pick(map(tables.quality, within)), rel=1e-9)


# ---------------------------------------------------------------------- a directory of blocks


@pytest.fixture(scope="module")
def bank() -> Bank:
    torch.manual_seed(0)
    base = spaces.get("mobilenet:tiny?layers=3&width=0.5&resolution=8&channels=1&classes=10")
    kept = Restricted(base, dict.fromkeys(range(len(base.slots)), (0, 3, 5)))
    made = Bank(kept, base.supernet())
    made.calibrate([(torch.randn(8, 1, 8, 8),)])
    return made


@pytest.fixture(scope="module")
def directory(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("dynamic")
    chain = build.write_blocks(bank, where)
    latency = Terms(1.0, tuple(np.array(c) for c in LATENCY))
    quality = Terms(50.0, tuple(np.array(c) for c in WORTH))
    build.write_dynamic(where, bank, chain, quality, latency, METRICS["accuracy"], 8.0)
    return where


def test_files_compute_what_the_networks_do(bank: Bank, directory: Path) -> None:
    assert build.disagreement(directory, bank, list(bank.kept.enumerate())[::4]) < 1e-4


def test_statistics_belong_to_blocks_whatever_network_they_are_in(bank: Bank) -> None:
    before = {k: v.clone() for k, v in bank.state_dict().items()}
    bank.train()
    bank(torch.randn(4, 1, 8, 8), path=NetworkPath((0, 1, 2)))
    assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())
    alone = bank.extract((0, 1, 2)).eval()
    bank.eval()
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(alone(x), bank(x, path=NetworkPath((0, 1, 2))))


def test_only_blocks_that_differ_are_loaded(directory: Path) -> None:
    network = DynamicNetwork(directory)
    network.switch((0, 0, 0))
    kept = dict(network._loaded)
    assert network.switch((0, 2, 0)) == 1
    same = [file for file, session in network._loaded.items() if kept.get(file) is session]
    assert len(same) == len(kept) - 1
    assert len(network._loaded) == len(kept)  # what is not used is let go


def slowed(network: DynamicNetwork, scale: float, runs: int) -> list[Any]:
    """Runs on a device whose speed is that of the tables times scale."""
    events = [network.observe(scale * network.tables.latency(network.choice)) for _ in range(runs)]
    return [event for event in events if event is not None]


def test_a_slower_device_is_answered_after_one_window(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, window=5, warmup=2, margin=0.0)
    assert network.predicted_ms <= 8.0
    before = network.choice
    scale = 8.4 / network.tables.latency(before)
    (event,) = slowed(network, scale, 7)
    assert event.reason == "slow"
    assert network.scale * network.tables.latency(before) == pytest.approx(event.mean_ms)
    assert event.search == "one block"
    assert event.swapped == 1
    assert network.predicted_ms <= 8.0
    assert not slowed(network, scale, 50)  # met from then on


@pytest.mark.parametrize("before", range(10))
def test_a_change_anywhere_in_a_window_takes_one_decision(directory: Path, before: int) -> None:
    network = DynamicNetwork(directory, 8.0, window=10, warmup=0, margin=0.0)
    slowed(network, 1.0, before)
    (event,) = slowed(network, 2.0, 60)
    assert event.scale == pytest.approx(2.0)


def test_a_short_burst_changes_nothing(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, window=10, warmup=0, margin=0.0)
    before = network.choice
    slowed(network, 3.0, 2)
    assert not slowed(network, 1.0, 60)
    assert network.choice == before


def test_levels_are_those_of_the_measured_latency() -> None:
    columns = [[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    worth = [[0.0, 1.0, 2.0], [0.0, 5.0, 9.0]]
    tables = Tables(
        {
            "better": "more",
            "latency_ms": {"const": 0.0, "blocks": columns},
            "quality": {"const": 0.0, "blocks": worth, "over": None},
        }
    )
    assert tables.lower((0, 2), 5.0) == (2, 2)  # 3 ms to 2 ms
    assert tables.lower((1, 0), 1.0) is None


def test_a_much_slower_device_needs_several_blocks(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, window=5, warmup=2, margin=0.0)
    (event,) = slowed(network, 2.0, 7)
    assert event.search == "exact"
    assert network.choice == network.tables.best(8.0 / 2.0)
    assert not slowed(network, 2.0, 50)


def test_a_device_that_recovers_gets_the_best_again(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, window=5, warmup=2, margin=0.0)
    best = network.choice
    slowed(network, 2.0, 7)
    assert network.choice != best
    (event,) = slowed(network, 1.0, 7)
    assert event.reason == "fast"
    assert network.choice == best


def test_what_cannot_be_met_is_said_and_the_fastest_runs(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, window=5, warmup=2)
    with pytest.warns(RuntimeWarning, match="no network keeps 8 ms"):
        slowed(network, 10.0, 7)
    assert not network.feasible
    assert network.choice == network.tables.fastest()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slowed(network, 10.0, 30)  # said once
    slowed(network, 1.0, 30)
    assert network.feasible


def test_a_changed_limit_is_answered_at_once(directory: Path) -> None:
    network = DynamicNetwork(directory, 8.0, margin=0.0)
    network.limit_ms = 5.0
    assert network.choice == network.tables.best(5.0)
    assert network.events[-1].reason == "limit"
    with pytest.raises(ValueError, match="limit_ms=0"):
        network.limit_ms = 0.0


def test_the_directory_is_all_that_is_needed(bank: Bank, directory: Path, tmp_path: Path) -> None:
    x = torch.randn(1, 1, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    script = (
        "import sys, json, numpy as np; sys.path.insert(0, sys.argv[1]); from controller import DynamicNetwork; "
        "n = DynamicNetwork(sys.argv[1], 1000); n.switch((1, 0, 2)); y = n(np.load(sys.argv[2])); "
        "print(json.dumps([y.tolist(), 'sartor' in sys.modules, 'torch' in sys.modules]))"
    )
    words = [sys.executable, "-c", script, str(directory), str(tmp_path / "x.npy")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    output, ours, torchs = json.loads(done.stdout)
    assert not ours
    assert not torchs
    with torch.no_grad():
        expected = bank(x, path=NetworkPath((1, 0, 2))).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)
    shown = subprocess.run(
        [sys.executable, str(directory / "controller.py"), str(directory), "--limit", "1000", "--runs", "30"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "limit 1000 ms" in shown.stdout


def test_blocks_that_depend_on_one_another_are_refused() -> None:
    base = spaces.get("nas-bench-201")
    with pytest.raises(UserError, match="cannot be exchanged alone"):
        Bank(Restricted(base, {}), None)


# ---------------------------------------------------------------------- the command


def test_a_search_becomes_a_dynamic_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    space = "mobilenet:tiny?layers=3&width=0.5&resolution=8&channels=1&classes=10"
    words = ["search", "mathnas", "--space", space, "--budget", "0.3MMACs", "--run", "found"]
    for setting in ("epochs=2", "queries=16", "members=[ridge]", "valid_batches=1"):
        words += ["--set", setting]
    app(words, standalone_mode=False)
    capsys.readouterr()
    again = ["adapt", "found", "--blocks", "3", "--epochs", "1", "--run", "dynamic", "--json"]
    app(again, standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert result["networks"] == np.prod([len(b) for b in result["blocks"].values()])
    assert result["max_relative_error"] < 1e-3
    rising = [row["quality"] for row in result["front"]]
    assert rising == sorted(rising)
    assert all(0 <= row["graded"] <= 100 for row in result["front"])
    written = json.loads((tmp_path / "dynamic" / "dynamic" / "dynamic.json").read_text())
    assert written["input"].keys() == {"pixels", "mean", "std"}
    found = json.loads((tmp_path / "found" / "architecture.json").read_text())["choices"]
    own = {slot: blocks[k] for (slot, blocks), k in zip(result["blocks"].items(), result["found"]["blocks"])}
    assert own == {slot: found[slot] for slot in own}
    assert "One network, many speeds" in (tmp_path / "dynamic" / "report.html").read_text()
    app(again, standalone_mode=False)  # done: told again, nothing measured anew
    assert json.loads(capsys.readouterr().out)["seconds"] == result["seconds"]


def test_blocks_of_a_restricted_space_are_those_of_its_base(tmp_path: Path) -> None:
    from sartor.workflow.adapting import Searched

    base = spaces.get("mobilenet:tiny?layers=3&width=0.5&resolution=8&channels=1&classes=10")
    space, task = base.restrict({0: [3, 4, 5], 1: [2, 5]}), tasks.get("digits")
    settings = {"epochs": 1, "queries": 12, "members": ("ridge",), "valid_batches": 1}
    budget = Complexity(space, "macs").at("5MMACs")
    found = sartor.search("mathnas", space, task, budget=budget, run=tmp_path / "found", **settings)
    kept = json.loads((tmp_path / "found" / "run.json").read_text())
    kept["job"] |= {"budgets": ["5MMACs"], "two_sided": False, "target": "none"}
    (tmp_path / "found" / "run.json").write_text(json.dumps(kept))
    result = {"method": "mathnas", "settings": MathNAS.of(settings).model_dump()}
    (tmp_path / "found" / "result.json").write_text(json.dumps(result))
    searched = Searched(tmp_path / "found", tasks.for_search(task))
    keep = searched.keep(3)
    assert [set(k) <= of for k, of in zip(keep, ({3, 4, 5}, {2, 5}))] == [True, True]
    assert searched.architecture == space.lift(found.architecture)
    assert all(k in of for k, of in zip(searched.architecture, keep))
    bank = Bank(Restricted(searched.space, dict(enumerate(keep))), searched.supernet)
    assert bank(torch.randn(2, 1, 8, 8), path=NetworkPath((0, 0, 0))).shape == (2, 10)


def test_only_a_search_with_a_supernet_can_be_adapted(tmp_path: Path) -> None:
    from sartor.workflow.adapting import Searched

    space = spaces.get("mobilenet:tiny?layers=3")
    (tmp_path / "architecture.json").write_text(json.dumps(space.to_json((0,) * len(space.slots))))
    (tmp_path / "result.json").write_text(json.dumps({"method": "lightnas"}))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="no search of mathnas with a supernet"):
        Searched(tmp_path, tasks.get("digits"))
    with pytest.raises(UserError, match="is no latency"):
        app(["adapt", str(tmp_path), "--limit", "3mJ"], standalone_mode=False)
