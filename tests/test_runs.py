"""Run directories: own randomness, nothing paid for is lost, killed at any moment and continued alike."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sartor.core import UserError
from sartor.runs import Run, read_json, read_lines, write_atomic, write_json

ROOT = Path(__file__).parents[1]
JOB = {"verb": "toy", "size": 3}


class Walk:
    """A state that depends on everything before it: a tensor, a number and a list."""

    def __init__(self) -> None:
        self.at, self.count, self.seen = torch.zeros(4), 0, list[float]()

    def move(self, noise: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        self.at = torch.sin(self.at * 1.7) + torch.from_numpy(noise).float()
        self.count += 1
        self.seen = [*self.seen[-3:], float(self.at.sum())]
        return self.seen[-1]

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "count": self.count, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.count, self.seen = state["at"], state["count"], list(state["seen"])


def toy(run: Run, steps: int, pause: float = 0.0) -> Walk:
    """A loop that draws, pays for answers, logs and moves on."""
    walk, stage = Walk(), run.stage("walk")
    for step in stage.steps(steps, walk=walk):
        paid = stage.memo(f"answer {step % 7}", lambda step=step: {"x": float(stage.rng("paid", step % 7).normal())})
        value = walk.move(stage.rng("noise", step).normal(size=4) + paid["x"])
        stage.log("step", step=step, value=value)
        time.sleep(pause)
    return walk


_CHILD = """
import logging, sys
from sartor.runs import Run
from tests.test_runs import JOB, toy
with Run(sys.argv[1], JOB, seed=5) as run:
    run.checkpoint_seconds = 0.004
    print("began", flush=True)
    toy(run, 120, 0.003)
"""
_HOLDER = """
import sys, time
from sartor.runs import Run
with Run(sys.argv[1], {"verb": "toy", "size": 3}, seed=5):
    print("open", flush=True)
    time.sleep(60)
"""


def child(code: str, where: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(where)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_streams_are_functions_of_seed_and_names_alone(tmp_path: Path) -> None:
    def draw(run: Run, *names: str | int) -> list[float]:
        return [float(x) for x in run.rng(*names).random(4)]

    with Run(tmp_path / "a", JOB, seed=1) as a, Run(tmp_path / "b", {"verb": "other"}, seed=1) as b:
        a.rng("consumed").random(100)
        assert draw(a, "x", 1) == draw(b, "x", 1) == draw(a, "x", 1)
        streams = [draw(a, *n) for n in [(), ("x",), ("y",), ("x", 1), ("x", "1"), ("x1",), ("x", 2)]]
        streams += [draw(a.stage("s"), "x"), draw(a.stage("s"), "y"), draw(a.stage("t"), "x")]
        with Run(tmp_path / "c", JOB, seed=2) as c:
            streams.append(draw(c, "x"))
        assert draw(a.stage("s"), "x") == draw(b.stage("s"), "x")
        assert len({tuple(s) for s in streams[:7]}) == 7
        assert len({tuple(s) for s in streams[7:]}) == 4
        assert a.torch_seed("w") == b.torch_seed("w") != a.torch_seed("v")
        assert 0 <= a.torch_seed("w") < 2**63


def test_a_name_path_is_one_stream_however_it_is_written(tmp_path: Path) -> None:
    run = Run(tmp_path, JOB, seed=1)
    assert run.stage("s").rng("x").random() == run.rng("s", "x").random()


def test_memo_is_on_disk_before_it_is_used(tmp_path: Path) -> None:
    calls: list[str] = []

    def compute() -> dict[str, float]:
        calls.append("paid")
        return {"value": 1.5}

    with Run(tmp_path / "r", JOB) as run:
        answer = run.stage("s").memo("k", compute)
        assert [line["key"] for line in read_lines(tmp_path / "r" / "memo.jsonl")] == ["s/k"]
        assert answer == {"value": 1.5} == run.stage("s").memo("k", compute)
        run.memo("k", compute)  # another stage, another question
    with Run(tmp_path / "r", JOB) as run:
        assert run.stage("s").memo("k", compute) == {"value": 1.5}
    assert calls == ["paid", "paid"]


def test_a_failing_question_is_not_remembered(tmp_path: Path) -> None:
    with Run(tmp_path / "r", JOB) as run:
        with pytest.raises(ZeroDivisionError):
            run.memo("k", lambda: 1 / 0)
        assert run.memo("k", lambda: 3) == 3


def test_a_torn_last_memo_line_is_asked_again_and_the_others_are_kept(tmp_path: Path) -> None:
    with Run(tmp_path / "r", JOB) as run:
        run.memo("a", lambda: 1)
        run.memo("b", lambda: 2)
    memo = tmp_path / "r" / "memo.jsonl"
    memo.write_bytes(memo.read_bytes()[:-3])
    with Run(tmp_path / "r", JOB) as run:
        assert run.memo("a", lambda: pytest.fail("was paid for")) == 1
        assert run.memo("b", lambda: 20) == 20
        assert run.memo("c", lambda: 3) == 3
    assert [line["value"] for line in read_lines(memo)] == [1, 20, 3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes, bytes]:
    """State, journal and memo of the toy loop when nothing disturbs it."""
    where = tmp_path_factory.mktemp("whole") / "run"
    with Run(where, JOB, seed=5) as run:
        state = toy(run, 120).state_dict()
    return state, (where / "walk" / "journal.jsonl").read_bytes(), (where / "memo.jsonl").read_bytes()


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random_moments_ends_as_if_nothing_happened(
    tmp_path: Path, whole: tuple[dict[str, Any], bytes, bytes], seed: int
) -> None:
    where, moments = tmp_path / "run", random.Random(seed)
    process = child(_CHILD, where)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(moments.uniform(0, 0.6))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Run(where, JOB, seed=5) as run:
        walk = toy(run, 120)
    state, journal, memo = whole
    assert torch.equal(walk.at, state["at"])
    assert (walk.count, walk.seen) == (state["count"], state["seen"])
    assert (where / "walk" / "journal.jsonl").read_bytes() == journal
    assert (where / "memo.jsonl").read_bytes() == memo
    assert not list(where.rglob("*.part"))


def test_a_kill_before_the_run_began_leaves_a_usable_directory(tmp_path: Path) -> None:
    where = tmp_path / "run"
    where.mkdir()
    (where / "lock").touch()
    (where / ".run.json.4711.part").write_text('{"sche')
    with Run(where, JOB):
        pass
    assert read_json(where / "run.json")["job"] == JOB


def test_a_resumed_stage_drops_the_lines_its_checkpoint_had_not_seen(tmp_path: Path) -> None:
    with Run(tmp_path / "r", JOB, seed=5) as run:
        run.checkpoint_seconds = 0
        loop = run.steps(5, walk=Walk())
        for step in loop:
            run.log("step", step=step)
            if step == 3:
                loop.close()  # type: ignore[attr-defined]
                break
        assert [line["step"] for line in run.journal()] == [0, 1, 2, 3]
    with Run(tmp_path / "r", JOB, seed=5) as run:
        assert [step for step in run.steps(5, walk=Walk()) if run.log("step", step=step) is None] == [3, 4]
        assert [line["step"] for line in run.journal()] == [0, 1, 2, 3, 4]
        assert list(run.steps(5, walk=Walk())) == []


def test_a_second_process_is_told_who_owns_the_run(tmp_path: Path) -> None:
    process = child(_HOLDER, tmp_path / "run")
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "open"
        with pytest.raises(UserError) as caught, Run(tmp_path / "run", {"verb": "toy", "size": 3}, seed=5):
            pass
        message = str(caught.value)
        assert f"process {process.pid}" in message
        assert "another --run" in message
        assert "\n" not in message
        assert caught.value.exit_code == 2
    finally:
        process.kill()
        process.wait()
    with Run(tmp_path / "run", JOB, seed=5):  # the lock died with its owner
        pass


def fresh(where: Path) -> None:
    with Run(where, JOB, seed=5) as run:
        run.checkpoint_seconds = 0
        toy(run, 4)


def spoil(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda where: (where / name).write_bytes(data) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("run.json", b"{"), "run.json is damaged or not JSON"),
        (spoil("run.json", b"\xff\xfe"), "run.json is damaged or not JSON"),
        (spoil("run.json", b"[]"), "not one this version reads"),
        (spoil("run.json", b'{"schema": 99}'), "not one this version reads"),
        (spoil("run.json", b'{"schema": 1}'), "holds no job"),
        (spoil("walk/checkpoint.pt", b"nonsense"), "checkpoint.pt is damaged"),
        (spoil("walk/checkpoint.pt", b""), "checkpoint.pt is damaged"),
        (lambda where: (where / "walk" / "journal.jsonl").unlink(), "journal.jsonl is damaged: it lacks lines"),
        (spoil("memo.jsonl", b"{}\n"), "lacks its key"),
        (spoil("memo.jsonl", b"[1]\n"), "no object"),
        (spoil("memo.jsonl", b"{\n"), "memo.jsonl is damaged"),
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    fresh(tmp_path / "r")
    damage(tmp_path / "r")
    with pytest.raises(UserError, match=message) as caught, Run(tmp_path / "r", JOB, seed=5) as run:
        toy(run, 6)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "r" / "run.json").exists()


@pytest.mark.parametrize(
    ("job", "seed", "named"),
    [({"verb": "toy", "size": 4}, 5, "size"), ({"verb": "toy"}, 5, "size"), (JOB, 6, "seed"), ({}, 5, "size")],
)
def test_a_directory_of_another_job_says_what_differs(
    tmp_path: Path, job: dict[str, Any], seed: int, named: str
) -> None:
    fresh(tmp_path / "r")
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=f"another job: its {named}"), Run(tmp_path / "r", job, seed):
        pass
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_places_that_cannot_be_runs_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for place, message in (
        ("file", "is a file"),
        ("file/below", "cannot write the run"),
        ("mine", "holds files but no run"),
    ):
        with pytest.raises(UserError, match=message), Run(tmp_path / place, JOB):
            pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine", "thesis.txt"]


def refuse(where: Path, work: Callable[[Run], Any]) -> None:
    """A job that does something and then turns out to be malformed."""

    def job() -> None:
        with Run(where, JOB) as run:
            work(run)
            raise UserError("too small; give more.")

    with pytest.raises(UserError, match="too small"):
        job()


def test_a_refused_job_leaves_the_directory_to_a_corrected_one(tmp_path: Path) -> None:
    refuse(tmp_path / "r", lambda run: run.stage("walk").log("tried"))
    assert not (tmp_path / "r").exists()
    with Run(tmp_path / "r", {"verb": "corrected"}):
        pass


def test_what_was_paid_for_outlives_a_refused_job(tmp_path: Path) -> None:
    refuse(tmp_path / "r", lambda run: run.memo("k", lambda: 7))
    refuse(tmp_path / "r", lambda run: None)
    with Run(tmp_path / "r", JOB) as run:
        assert run.memo("k", lambda: 8) == 7


def test_an_atomic_write_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.json"
    write_json(file, {"x": float("nan"), "y": [1, float("inf"), {"z": (1.5,)}]})
    assert json.loads(file.read_text()) == {"x": None, "y": [1, None, {"z": [1.5]}]}
    with pytest.raises(TypeError):
        write_json(file, {"x": object()})
    with pytest.raises(TypeError):
        write_atomic(file, "text, not bytes")  # type: ignore[arg-type]
    assert json.loads(file.read_text())["y"][0] == 1
    assert [p.name for p in file.parent.iterdir()] == ["a.json"]


class Unsaveable(Walk):
    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("cannot be saved")


def test_a_state_that_cannot_be_saved_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    fresh(tmp_path / "r")
    checkpoint = tmp_path / "r" / "walk" / "checkpoint.pt"
    before = checkpoint.read_bytes()
    with Run(tmp_path / "r", JOB, seed=5) as run:
        run.checkpoint_seconds = 0
        with pytest.raises(RuntimeError, match="cannot be saved"):
            list(run.stage("walk").steps(6, walk=Unsaveable()))
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "r").rglob("*.part"))


def test_reading_json_that_is_not_there_or_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)
