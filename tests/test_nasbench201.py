"""NAS-Bench-201: the space, its supernet, and the public table as scores."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import sartor
from sartor import spaces, tables
from sartor.core import Budget, UserError
from sartor.core.task import Path as Route
from sartor.runs import Run
from sartor.spaces.complexity import Complexity
from sartor.spaces.nasbench201 import OPERATORS, NASBench201
from sartor.tables import Table
from tests.contracts.scores import check_score
from tests.contracts.spaces import check_space
from tests.test_data_sources import SARTOR_DATA, needs_data
from tests.test_one_idea import task_of

SMALL = "nas-bench-201?width=4&cells=1&resolution=8"
TEXT = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


def write(path: Path, space: NASBench201, n: int | None = None) -> Path:
    archs = list(space.enumerate())[:n]
    rng = np.random.default_rng(0)
    content = {
        "arch_str": [space.string(a) for a in archs],
        "pi_latency_ms": rng.random(len(archs)) + [sum(a) for a in archs],
        "test_acc": rng.random(len(archs)) * 100,
        "notes": ["" for _ in archs],
        "colour": np.arange(len(archs)),
    }
    content["pi_latency_ms"][7] = np.nan
    pq.write_table(pa.table(content), path)
    return path


def test_the_space_keeps_the_contract():
    space = spaces.get(SMALL)
    assert space.size == 15_625
    check_space(space, enumerate_below=0)


def test_strings_are_the_benchmark_s():
    space = NASBench201()
    arch = space.parse(TEXT)
    assert [OPERATORS[k] for k in arch] == [
        "avg_pool_3x3", "nor_conv_1x1", "skip_connect", "nor_conv_1x1", "skip_connect", "skip_connect",
    ]  # fmt: skip
    assert space.string(arch) == TEXT
    assert all(space.parse(space.string(a)) == a for a in itertools.islice(space.enumerate(), 0, None, 97))
    for wrong in ("", TEXT[:-1], TEXT.replace("skip_connect", "skip"), TEXT + TEXT, TEXT.replace("~2", "~1")):
        with pytest.raises(UserError, match="no NAS-Bench-201 cell"):
            space.parse(wrong)


def test_a_cell_adds_up_its_edges():
    space = spaces.get(SMALL)
    network = space.network(
        tuple(OPERATORS.index(o) for o in ("skip_connect", "none", "none", "skip_connect", "none", "none"))
    )
    cell = network[1]
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(cell(x), x)  # node 1 leads nowhere
    both = space.network(tuple([OPERATORS.index("skip_connect")] * 6))[1]
    assert torch.allclose(both(x), 4 * x)  # paths 03, 013, 023, 0123
    nothing = space.network((0,) * 6)[1]
    assert torch.equal(nothing(x), torch.zeros_like(x))


def test_pooling_does_not_count_the_border():
    network = spaces.get(SMALL).network((0, 0, 0, OPERATORS.index("avg_pool_3x3"), 0, 0))
    x = torch.ones(1, 4, 8, 8)
    assert torch.allclose(network[1](x), x)


def test_only_the_path_runs_in_the_supernet_and_gates_get_gradients():
    space = spaces.get(SMALL)
    supernet = space.supernet()
    arch = space.parse(TEXT)
    gates = tuple(torch.eye(5)[k].requires_grad_() for k in arch)
    loss = supernet(*space.inputs(4), path=Route(arch, gates)).square().sum()
    loss.backward()
    assert all(g.grad[k] != 0 and (g.grad[torch.arange(5) != k] == 0).all() for g, k in zip(gates, arch))
    trained = {name for name, p in supernet.named_parameters() if p.grad is not None and ".on." in name}
    assert trained
    assert all(OPERATORS[int(name.split(".on.")[1].split(".")[1])] == "nor_conv_1x1" for name in trained)


def test_a_window_knows_what_is_executed():
    base = NASBench201()
    window = base.restrict({0: [0, 3], 2: [1, 2, 4], 5: [3]})
    archs = window.sample(np.random.default_rng(0), 20)

    def executed(space, archs):
        rows = space.one_hot(archs)
        return space.executed([rows[:, a:b] for a, b in itertools.pairwise(space.offsets)])

    for mine, theirs in zip(executed(window, archs), executed(base, [window.lift(a) for a in archs])):
        np.testing.assert_array_equal(mine, theirs)
    gates = tuple(torch.full((len(s),), 1 / len(s)) for s in window.slots)
    assert all(isinstance(block, torch.Tensor) for block in window.executed(gates))
    assert spaces.get("mobilenet:tiny").restrict({0: [1, 2]}).executed([]) is None


@needs_data
def test_counts_are_the_table_s():
    space = NASBench201()
    table = tables.load(space, f"{SARTOR_DATA}/nas_bench_201.parquet")
    archs = space.sample(np.random.default_rng(0), 40)
    rows = [table.row[a] for a in archs]
    known = table.columns["cifar10_mflops"][rows]  # counts the ten biases too
    np.testing.assert_allclose(Complexity(space, "macs")(archs) + 10, known * 1e6, atol=0.5)
    params = [sum(p.numel() for p in space.network(a).parameters()) for a in archs[:12]]
    assert params == table.columns["params_cifar10"][rows[:12]].tolist()


def test_a_table_answers_as_scores(tmp_path):
    space = NASBench201()
    table = tables.load(space, write(tmp_path / "t.parquet", space))
    cost = table.score("pi_latency_ms")
    assert (cost.metric.name, table.score("test_acc").metric.name) == ("latency_ms", "accuracy")
    check_score(cost, space)
    first = list(itertools.islice(space.enumerate(), 9))
    fresh = table.score("pi_latency_ms")
    assert np.isnan(fresh(first)[7])
    assert fresh.read == set(first)
    p = tuple(torch.softmax(torch.randn(5, dtype=torch.float64), 0) for _ in space.slots)
    joint = p[0]
    for row in p[1:]:
        joint = (joint[:, None] * row).reshape(-1)
    values = torch.from_numpy(
        np.nan_to_num(table.columns["pi_latency_ms"], nan=np.nanmean(table.columns["pi_latency_ms"]))
    )
    torch.testing.assert_close(cost.soft(p), joint @ values)


def test_bad_tables_are_refused_in_one_line(tmp_path):
    space = NASBench201()
    path = write(tmp_path / "t.parquet", space, 50)
    table = tables.load("nas-bench-201", path)
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    gates = tuple(torch.full((5,), 0.2) for _ in space.slots)
    for attempt, said in (
        (lambda: table.score("latency"), "did you mean"),
        (lambda: table.score("colour"), "does not say what it measures"),
        (lambda: table.score("pi_latency_ms").soft(gates), "50 of the 15625"),
        (lambda: tables.load(space, tmp_path / "none.parquet"), "does not exist"),
        (lambda: tables.load(space, tmp_path / "text.parquet"), "no Parquet file"),
        (lambda: tables.load(space, tmp_path / "other.parquet"), "no column 'arch_str'"),
        (lambda: tables.load("mobilenet:tiny", path), "not about space 'mobilenet'"),
    ):
        with pytest.raises(UserError) as refused:
            attempt()
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_search_lands_on_a_table_s_cost(tmp_path):
    space = spaces.get(SMALL + "&channels=3&classes=5")
    cost = tables.load(space, write(tmp_path / "t.parquet", NASBench201())).score("pi_latency_ms")
    budget = Budget(cost, 11.0)
    with Run(tmp_path / "run", {"test": "table"}, 0) as run:
        found = sartor.search(
            "lightnas", space, task_of("ragged"), budget=budget, run=run, epochs=3, warmup_epochs=1, batch_size=32
        )
    assert budget.lands(float(cost([found.architecture])[0]))
    assert found.winner.status == "optimal"


def test_a_table_is_about_its_space():
    space = NASBench201()
    table = Table(space, [(0,) * 6], {"x_latency_ms": np.array([2.0])})
    assert table.score("x_latency_ms")([(0,) * 6, (1,) * 6]).tolist()[0] == 2.0
    assert np.isnan(table.score("x_latency_ms")([(1,) * 6])[0])
