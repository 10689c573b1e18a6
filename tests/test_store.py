"""The store of measurements: real SQLite files, many processes, kills."""

import math
import multiprocessing
import sqlite3

import pytest

from sartor.core import Measurement, UserError
from sartor.targets.store import Store
from tests.toys import ToySpace

SPACE = ToySpace(2)
ARCHS = list(SPACE.enumerate())


def measured(arch, *samples, metric="latency_ms", error=None, **conditions):
    return Measurement(SPACE.key(arch), arch, metric, samples, samples, conditions, error)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "m.sqlite") as opened:
        opened.register(SPACE, ARCHS)
        yield opened


def keys(archs):
    return {SPACE.key(arch): arch for arch in archs}


def test_what_is_added_comes_back_whole(store):
    one = measured((1, 0), 0.1, 0.3, 1 / 3, load=0.5, drift=0.01)
    failed = measured((0, 1), error="RuntimeError: no", stage="run")
    store.add("t", one)
    store.add("t", failed)
    found = store.known(keys(ARCHS), "t", ["latency_ms"])
    assert found == {(one.key, "latency_ms"): one, (failed.key, "latency_ms"): failed}
    assert math.isnan(found[failed.key, "latency_ms"].value)
    assert store.known(keys(ARCHS), "other", ["latency_ms"]) == {}
    assert store.known(keys(ARCHS), "t", ["energy_mj"]) == {}
    assert store.known(keys(ARCHS), "t", ["latency_ms"], "second") == {}


def test_the_anchor_is_what_an_undisturbed_reference_cost_first(store):
    def beside(reference, network="r", metric="latency_ms"):
        return Measurement("k", (0, 0), metric, (1.0,), reference, {"reference_network": network})

    assert store.anchor("t", beside((7.0, 14.0, 14.0))) is None
    assert store.anchor("t", beside((5.0, 5.2))) == 5.0
    assert store.anchor("t", beside((6.0, 6.0))) == 5.0
    assert store.anchor("t", beside((6.0, 12.0, 12.0))) == 5.0
    assert store.anchor("t", beside(())) is None
    assert store.anchor("t", beside((3.0,), "other")) == 3.0
    assert store.anchor("u", beside((4.0,))) == 4.0
    assert store.anchor("t", beside((9.0,), metric="energy_mj")) == 9.0
    assert store.anchors("t", "latency_ms") == {"r": 5.0, "other": 3.0}
    assert store.anchor("t", measured((1, 0), 2.0)) is None, "nobody says which network it is"


def test_adding_again_neither_doubles_nor_raises(store):
    store.add("t", measured((1, 0), 1.0))
    store.add("t", measured((1, 0), 1.0))
    store.add("t", measured((1, 0), 2.0))
    assert store.table(SPACE, "t", "latency_ms")[1].tolist() == [1.0]
    store.add("t", measured((1, 0), 2.0), replace=True)
    assert store.table(SPACE, "t", "latency_ms")[1].tolist() == [2.0]


def test_a_number_replaces_a_failure_but_not_the_other_way(store):
    store.add("t", measured((1, 0), error="RuntimeError: busy", stage="run"))
    store.add("t", measured((1, 0), 3.0))
    store.add("t", measured((1, 0), error="RuntimeError: busy", stage="run"))
    assert store.table(SPACE, "t", "latency_ms")[1].tolist() == [3.0]


def test_table_leaves_out_failures_and_joins_sittings(store):
    store.add("t", measured((1, 0), 1.0), "a")
    store.add("t", measured((1, 0), 2.0), "b")
    store.add("t", measured((0, 1), 5.0), "b")
    store.add("t", measured((0, 0), error="no"), "b")
    store.add("t", measured((0, 0), 9.0, metric="energy_mj"), "b")
    assert store.table(SPACE, "t", "latency_ms")[0] == [(0, 1), (1, 0)]
    assert store.table(SPACE, "t", "latency_ms")[1].tolist() == [5.0, 1.5]
    assert store.table(SPACE, "t", "latency_ms", "a")[1].tolist() == [1.0]
    assert store.table(SPACE, "elsewhere", "latency_ms")[0] == []
    assert {(s["sitting"], s["metric"], s["measured"], s["failed"]) for s in store.sittings("t")} == {
        ("a", "latency_ms", 1, 0),
        ("b", "latency_ms", 2, 1),
        ("b", "energy_mj", 1, 0),
    }


def test_a_network_measured_for_one_space_is_known_in_its_sub_space(store):
    store.add("t", measured((1, 2), 7.0))
    small = SPACE.restrict({0: [1, 3], 1: [2]})
    store.register(small, [(0, 0)])
    assert store.table(small, "t", "latency_ms") == ([(0, 0)], [7.0])
    assert store.known({small.key((0, 0)): (0, 0)}, "t", ["latency_ms"])[SPACE.key((1, 2)), "latency_ms"].arch == (0, 0)


def test_more_networks_than_fit_into_one_query(store):
    big = ToySpace(6)
    archs = [arch for _, arch in zip(range(1200), big.enumerate())]
    store.register(big, archs)
    store.register(big, archs)
    for arch in archs[::100]:
        store.add("t", Measurement(big.key(arch), arch, "latency_ms", (1.0,)))
    assert len(store.known({big.key(arch): arch for arch in archs}, "t", ["latency_ms"])) == 12


def write(path, worker):
    """Every process writes all of them, each in another order, and some networks of its own sitting."""
    with Store(path) as store:
        store.register(SPACE, ARCHS)
        for k in range(len(ARCHS)):
            arch = ARCHS[(worker + k) % len(ARCHS)]
            store.add("t", measured(arch, 1.0))
            store.add("t", measured(arch, 1.0), f"of {worker}")


def test_sixteen_processes_write_one_store(tmp_path):
    path = tmp_path / "m.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(path, worker)) for worker in range(16)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 16
    with Store(path) as store:
        counts = {s["sitting"]: s["measured"] for s in store.sittings("t")}
        assert counts == {"default": 16, **{f"of {worker}": 16 for worker in range(16)}}
        assert store.table(SPACE, "t", "latency_ms")[0] == ARCHS
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_schema_of_another_version_is_refused(tmp_path):
    path = tmp_path / "m.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE sartor SET schema = 99")
    with pytest.raises(UserError, match="have schema 99, this version reads"):
        Store(path)


def test_places_that_cannot_be_opened(tmp_path):
    (tmp_path / "text").write_text("not a database, and long enough to be seen as one that is not" * 10)
    for where in (tmp_path / "text", tmp_path / "text" / "m.sqlite", "nosuchdatabase://host/name", tmp_path):
        with pytest.raises(UserError, match="cannot open the measurements in") as caught:
            Store(where)
        assert "\n" not in str(caught.value)


def test_urls_are_taken(tmp_path):
    with Store(f"sqlite:///{tmp_path}/deep/m.sqlite") as store:
        store.add("t", measured((1, 0), 1.0))
    with Store(tmp_path / "deep" / "m.sqlite") as store:
        assert store.sittings()[0]["measured"] == 1
