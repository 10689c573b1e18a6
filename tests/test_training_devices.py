"""Training on several devices: real processes that share batches, die, are killed and resumed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core import UserError
from sartor.runs import Run, read_lines
from sartor.training import tasks
from sartor.training.devices import check
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from tests.test_training_loop import equal, saved, small

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def few(images: int = 180, augmented: bool = True) -> tasks.Classification:
    data = replace(tasks.get("digits").data, images=images)
    return tasks.Classification(data if augmented else replace(data, augmentation="none"))


def plain() -> nn.Module:
    """No batch norm, no dropout, and a layer that is never used."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    network[1].spare = nn.Linear(2, 2)  # type: ignore[assignment]
    return network


def test_two_devices_train_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the other process begins elsewhere
    task, recipe = few(augmented=False), Recipe(epochs=2, batch_size=25, clip_norm=0.5)
    alone, shared = plain(), plain()
    with Run("alone", {}) as run:
        one = train(alone, task, recipe, run)
        lines = run.journal()
    with Run("shared", {}) as run:
        two = train(shared, task, recipe, run, devices=2)
        for mine, theirs in zip(run.journal(), lines, strict=True):
            assert mine.pop("event") == theirs.pop("event")
            assert mine == pytest.approx(theirs, rel=1e-4)
    assert not equal(alone, plain())
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert not shared.training
    assert active_children() == []
    assert "MASTER_PORT" not in os.environ


@pytest.mark.parametrize("images", [7, 180])  # seven are one batch, of which three and four are shared out
def test_unequal_shares_weigh_right(tmp_path: Path, images: int) -> None:
    task, recipe = few(images, augmented=False), Recipe(epochs=1, batch_size=45, evaluate_every=0)
    networks = plain(), plain()
    for network, devices in zip(networks, (1, 2)):
        with Run(tmp_path / str(devices), {}) as run:
            train(network, task, recipe, run, devices=devices)
    for one, two in zip(*(network.state_dict().values() for network in networks)):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


RECIPE = Recipe(epochs=12, batch_size=50, label_smoothing=0.1)
_CHILD = """
import sys
import threading
import torch
from sartor.runs import Run
from sartor.training.loop import train
from tests.test_training_devices import RECIPE, few, small
if __name__ == "__main__":
    torch.set_num_threads(1)
    with Run(sys.argv[1], {"job": 1}, seed=3) as run:
        run.checkpoint_seconds = 0.02
        train(small(), few(600), RECIPE, run, devices=2)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A network with batch norm and dropout, and the journal of its training without interruption."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with Run(tmp_path_factory.mktemp("whole"), {"job": 1}, seed=3) as run:
        train(network := small(), few(600), RECIPE, run, devices=2)
        journal = run.journal()
    torch.set_num_threads(before)
    return network, journal


def resumed_alike(where: Path, whole: tuple[nn.Module, list[dict[str, Any]]]) -> bool:
    with Run(where, {"job": 1}, seed=3) as run:
        train(network := small(), few(600), RECIPE, run, devices=2)
        return equal(network, whole[0]) and run.journal() == whole[1]


def test_batch_norm_learns(whole: tuple[nn.Module, list[dict[str, Any]]]) -> None:
    network, journal = whole
    assert [line["epoch"] for line in journal] == list(range(1, 13))
    assert journal[-1]["loss"] < 0.8 * journal[0]["loss"]
    assert journal[-1]["accuracy"] > 70
    assert network[1].num_batches_tracked == 12 * 12  # type: ignore[index]


@pytest.mark.parametrize("kill", [os.killpg, os.kill])
def test_a_killed_training_ends_as_if_nothing_happened(
    tmp_path: Path, whole: tuple[nn.Module, list[dict[str, Any]]], kill: Any
) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], cwd=ROOT, start_new_session=True)
    others: list[Path] = []
    try:
        give_up = time.monotonic() + 60
        while saved(tmp_path / "checkpoint.pt") < 20 and time.monotonic() < give_up:
            time.sleep(0.005)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        others = [Path(f"/proc/{pid}/cmdline") for pid in children]
        kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert 20 <= saved(tmp_path / "checkpoint.pt") < 12 * 12
    while any(other.exists() and other.read_bytes() for other in others):  # a dead one is empty until it is reaped
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert others
    assert resumed_alike(tmp_path, whole)


def test_a_death_among_the_devices_is_an_error_that_can_be_resumed(
    tmp_path: Path, whole: tuple[nn.Module, list[dict[str, Any]]]
) -> None:
    stop = threading.Event()

    def strike() -> None:
        while len(read_lines(tmp_path / "journal.jsonl")) < 2 and not stop.wait(0.005):
            pass
        for process in active_children():
            process.kill()

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        with (
            Run(tmp_path, {"job": 1}, seed=3) as run,
            pytest.raises(RuntimeError, match=r"device 2 .*SIGKILL.* resumes"),
        ):
            train(small(), few(600), RECIPE, run, devices=2)
    finally:
        stop.set()
        striker.join()
    assert active_children() == []
    assert resumed_alike(tmp_path, whole)


class _Interrupted(tasks.Classification):
    """Ctrl-C in the middle of an evaluation, which the first device alone does."""

    def evaluate(self, net: Any, split: Any, *, limit: int | None = None) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_ends_every_process(tmp_path: Path) -> None:
    with Run(tmp_path, {}) as run, pytest.raises(KeyboardInterrupt):
        train(small(), _Interrupted(few().data), Recipe(epochs=2), run, devices=2)
    assert active_children() == []
    assert len(read_lines(tmp_path / "journal.jsonl")) == 0


def test_what_all_devices_find_wrong_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Run(tmp_path, {}) as run, pytest.raises(UserError, match=r"loss is .* lower lr=1e\+30"):
        train(plain(), few(), Recipe(epochs=3, lr=1e30, clip_norm=None), run, devices=2)
    assert capfd.readouterr() == ("", "")


def test_a_task_that_cannot_be_sent_is_one_line(tmp_path: Path) -> None:
    class Local(tasks.Classification):
        def loss(self, net: Any, batch: Any) -> Tensor:
            return super().loss(net, batch)

    with Run(tmp_path, {}) as run, pytest.raises(UserError, match=r"cannot be sent .*Local.* devices=1"):
        train(plain(), Local(few().data), Recipe(), run, devices=2)


_SCRIPT = """
from sartor.core import UserError
from sartor.runs import Run
from sartor.training.loop import train
from tests.test_training_devices import Recipe, few, plain, tasks
class Mine(tasks.Classification):
    pass
with Run("run", {}) as run:
    try:
        train(plain(), Mine(few().data), Recipe(), run, devices=2)
    except UserError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("line", "says"), [(["-c", _SCRIPT], "cannot be sent .*Mine.* devices=1"), (["script.py"], "device 2 .*__main__")]
)
def test_what_a_process_cannot_import_is_one_line(tmp_path: Path, line: list[str], says: str) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *line]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert re.search(says, done.stdout)
    assert done.stdout.count("\n") == 1


def test_devices_that_are_not_there_are_one_line() -> None:
    for devices in (0, -1, True, "2"):
        with pytest.raises(UserError, match=f"devices={devices} must be a whole number of at least 1"):
            check(devices, torch.device("cpu"), 128)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"devices=129 .* batch of 128; .* devices=128"):
        check(129, torch.device("cpu"), 128)
    there = torch.cuda.device_count()
    with pytest.raises(UserError, match=rf"devices={there + 2}, from cuda on there are {there}; give fewer"):
        check(there + 2, torch.device("cuda"), 128)
    check(128, torch.device("cpu"), 128)
