"""Measuring into a store: nothing twice, nothing lost, also after kills."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sartor.core import Measurement
from sartor.targets import get
from sartor.targets.measure import measure
from sartor.targets.store import Store
from sartor.targets.timing import Rounds
from tests.toys import ToySpace

SPACE = ToySpace(3)
QUICK = Rounds(chunk=4, rounds=2, visit_ms=0.1, visit_runs=1, warmup_ms=0.1, patience_s=0)


class Counting:
    """A target that answers at once, counts what it is asked and fails where told."""

    id, metrics = "counting", frozenset({"latency_ms", "energy_mj"})

    def __init__(self, failing=()):
        self.asked, self.failing = [], dict(failing)

    def measure(self, space, archs, metrics, known=None):
        for arch in archs:
            for metric in metrics:
                self.asked.append((arch, metric))
                stage = self.failing.get(arch)
                samples = () if stage else (float(len(self.asked)), 1e3)
                conditions = {"stage": stage} if stage else {}
                yield Measurement(space.key(arch), arch, metric, samples, samples, conditions, stage and "Error: no")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "m.sqlite") as opened:
        yield opened


def test_only_what_is_missing_is_measured(store):
    archs = list(SPACE.enumerate())
    target = Counting()
    first = measure(SPACE, target, archs[:5], ["latency_ms"], store)
    assert [m.arch for m in first] == archs[:5]
    both = measure(SPACE, target, [*archs[3:8], archs[3]], ["latency_ms", "energy_mj"], store)
    assert [(m.arch, m.metric) for m in both] == [
        (arch, metric) for arch in [*archs[3:8], archs[3]] for metric in ("latency_ms", "energy_mj")
    ]
    assert len(target.asked) == len(set(target.asked)) == 8 + 5
    assert both[0] == first[3]
    other = measure(SPACE, target, archs[:2], ["latency_ms"], store, sitting="second")
    assert [m.value for m in other] == [14.0, 15.0]
    again = measure(SPACE, target, archs[:2], ["latency_ms"], store, resume=False)
    assert [m.value for m in again] == [16.0, 17.0]
    assert store.table(SPACE, "counting", "latency_ms", "default")[1][:2].tolist() == [16.0, 17.0]


def test_failures_of_the_moment_are_tried_again_and_others_not(store):
    archs = [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    first = measure(SPACE, Counting({archs[1]: "build", archs[2]: "run"}), archs, ["latency_ms"], store)
    assert [m.error for m in first] == [None, "Error: no", "Error: no"]
    mended = Counting()
    second = measure(SPACE, mended, archs, ["latency_ms"], store)
    assert [arch for arch, _ in mended.asked] == [archs[2]]
    assert [m.error for m in second] == [None, "Error: no", None]


def test_a_fit_on_a_sub_space_uses_what_the_space_was_measured_for(store):
    target = Counting()
    measure(SPACE, target, [(1, 2, 3), (1, 0, 3)], ["latency_ms"], store)
    small = SPACE.restrict({0: [1], 2: [3, 0]})
    found = measure(small, target, [(0, 2, 0), (0, 0, 0)], ["latency_ms"], store)
    assert [(m.arch, m.value) for m in found] == [((0, 2, 0), 1.0), ((0, 0, 0), 2.0)]
    assert len(target.asked) == 2
    assert store.table(small, "counting", "latency_ms")[0] == [(0, 0, 0), (0, 2, 0)]


def test_each_is_stored_before_the_next_is_asked_for(store):
    class Dies(Counting):
        def measure(self, space, archs, metrics, known=None):
            for k, one in enumerate(super().measure(space, archs, metrics)):
                if k == 3:
                    raise KeyboardInterrupt
                yield one

    with pytest.raises(KeyboardInterrupt):
        measure(SPACE, Dies(), list(SPACE.enumerate()), ["latency_ms"], store)
    assert len(store.table(SPACE, "counting", "latency_ms")[0]) == 3


CHILD = """
    import sys
    from tests.test_targets_measure import work
    work(sys.argv[1])
"""


def work(folder):
    """What the child does until it is killed, and the parent in the end."""
    target = replace(get("torch:cpu"), protocol=QUICK)
    archs = SPACE.sample(np.random.default_rng(0), 40)
    with Store(f"{folder}/m.sqlite") as store:
        return target, archs, measure(SPACE, target, archs, ["latency_ms"], store)


def rows(folder):
    try:
        with sqlite3.connect(Path(folder) / "m.sqlite") as raw:
            return sorted(raw.execute("SELECT key, samples, created FROM measurements"))
    except sqlite3.OperationalError:
        return []  # no file or no table yet


def test_killed_at_any_moment_and_resumed(tmp_path):
    root = Path(__file__).parent.parent
    before = []
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)], cwd=root)
        while child.poll() is None and len(rows(tmp_path)) <= len(before):
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        now = rows(tmp_path)
        assert set(before) <= set(now), "what was there has neither changed nor gone"
        before = now
    target, archs, found = work(tmp_path)
    after = rows(tmp_path)
    assert set(before) <= set(after)
    assert sorted(key for key, _, _ in after) == sorted({SPACE.key(arch) for arch in archs}), "nothing lost or doubled"
    assert [m.arch for m in found] == archs
    assert all(m.error is None for m in found)
    with Store(tmp_path / "m.sqlite") as store:
        values = dict(zip(*store.table(SPACE, target.id, "latency_ms")))
    assert [m.value for m in found] == [values[arch] for arch in archs]
