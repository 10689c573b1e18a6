"""Translation: pairs of sentences as subwords, batches, BLEU, and the whole way of a search."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from sartor import spaces, tasks, workflow
from sartor.core import METRICS, UserError
from sartor.data.sources import load
from sartor.data.text import BEGIN, END, PAD, UNKNOWN, Pairs, TextSet
from sartor.quality.supernet import SupernetScore, train_supernet
from sartor.runs import Run
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.training.translation import Translation
from tests.contracts.tasks import check_task
from tests.test_cli import done
from tests.test_data_sources import SARTOR_DATA, needs_data, refused
from tests.toys_translation import Bag, write_lines, write_pairs

SPACE = "supertransformer?source=80&target=80&length=6&width=0.05&dropout=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def task(folder: Path) -> Translation:
    found = tasks.get(f"multi30k:{folder}?vocabulary=80")
    assert isinstance(found, Translation)
    return found


def network(arch: int = 0) -> Any:
    space = spaces.get(SPACE)
    torch.manual_seed(arch)
    return space.network(space.sample(np.random.default_rng(arch), 1)[0])


# ---------------------------------------------------------------------- data


def test_subwords_are_learned_from_the_training_text_and_give_it_back(folder: Path, tmp_path: Path) -> None:
    data = load(f"multi30k:{folder}?vocabulary=80")
    assert isinstance(data, TextSet)
    assert (len(data.train), len(data.valid), len(data.test), data.vocabularies) == (120, 33, 33, (80, 80))
    assert data.written(data.train.target) == data.train.text
    assert (PAD, BEGIN, END, UNKNOWN) == (0, 1, 2, 3)
    assert bool((data.train.target[:, 0] == BEGIN).all())
    for side in (data.train.source, data.train.target):
        ends = (side != PAD).sum(dim=1) - 1
        assert bool((side.gather(1, ends[:, None]) == END).all())
    again = load(str(folder) + "?vocabulary=80")  # a plain path, learned once more
    assert isinstance(again, TextSet)
    assert again.content == data.content
    assert torch.equal(again.train.target, data.train.target)

    for file in folder.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_lines(tmp_path / "val.en.gz", ["A ξ dog runs."] * 33)
    other = load(f"multi30k:{tmp_path}?vocabulary=80")
    assert isinstance(other, TextSet)
    assert torch.equal(other.train.source, data.train.source)
    assert bool((other.valid.source == UNKNOWN).any())
    assert other.content != data.content


def test_either_way_and_long_pairs_are_left_out_of_training_alone(folder: Path) -> None:
    data, back = (load(f"multi30k:{folder}?vocabulary=80&{o}") for o in ("length=12", "languages=de-en"))
    assert isinstance(data, TextSet)
    assert isinstance(back, TextSet)
    whole = load(f"multi30k:{folder}?vocabulary=80")
    assert isinstance(whole, TextSet)
    source, target = whole.train.lengths().unbind(dim=1)
    assert 0 < len(data.train) == int(((source <= 12) & (target - 1 <= 12)).sum()) < 120  # BEGIN does not count
    assert len(data.test) == 33
    assert bool((data.train.source[:, 12:] == PAD).all())
    assert back.test.text[0].startswith("A ")


def test_what_cannot_be_read_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    here = f"multi30k:{tmp_path}"
    refused(f"{here}?vocabulary=20", "vocabulary=20", "en has", "give more")
    refused(f"{here}?vocabulary=many", "vocabulary=many", "whole number")
    refused(f"{here}?length=2", "length=2", "raise it")
    refused(f"{here}?languages=german", "languages=german", "en-de")
    refused(f"{here}?languages=en-fr", "train.fr.gz", "languages=en-fr")
    refused(f"{here}?images=20", "images", "vocabulary")
    write_lines(tmp_path / "val.de.gz", ["Ein Hund."] * 35)
    refused(here, "val", "33 en and 35 de")
    (tmp_path / "val.de.gz").write_bytes(b"plain")
    refused(here, "val.de.gz", "gzip")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    refused(f"multi30k:{folder}", "pip install sartor[text]")


def test_bleu_without_its_package_says_what_to_install(task: Translation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"pip install sartor\[text\]"):
        task.evaluate(network().eval(), "valid")


# ---------------------------------------------------------------------- the task


def test_translation_is_a_task(task: Translation) -> None:
    torch.manual_seed(0)
    check_task(task, Bag(80), calls=None)


def test_batches_are_of_one_length_and_nothing_is_lost(task: Translation) -> None:
    batches = list(task.batches("train", size=20, seed=0, epoch=0))
    shown = torch.cat([(target != PAD).sum(dim=1) for _, target in batches])
    everyone = (task.data.train.target[:, 1:] != PAD).sum(dim=1)
    assert torch.equal(shown.sort().values, everyone.sort().values)
    padding = sum(int((target == PAD).sum()) for _, target in batches) / sum(t.numel() for _, t in batches)
    assert padding < 0.4 * float((task.data.train.target[:, 1:] == PAD).float().mean())
    for (source, before), after in batches:
        assert torch.equal(before[:, 1:][after[:, :-1] != END], after[:, :-1][after[:, :-1] != END])
        assert source[:, -1].any()


class _Knows:
    """Answers with what is right for the validation pairs."""

    def __init__(self, task: Translation) -> None:
        pairs = zip(task.data.valid.source, task.data.valid.target)
        self.answers = {tuple(s[s != PAD].tolist()): t[t != PAD] for s, t in pairs}

    def __call__(self, source: Tensor, so_far: Tensor) -> Tensor:
        logits = torch.zeros(*so_far.shape, 80)
        for row, tokens in zip(logits, source):
            for step, token in enumerate(self.answers[tuple(tokens[tokens != PAD].tolist())][1:]):
                if step < len(row):
                    row[step, token] = 50.0
        return logits


def test_bleu_is_100_for_the_references_and_falls_with_every_wrong_one(task: Translation) -> None:
    knows = _Knows(task)
    found = task.evaluate(knows, "valid")
    assert found["bleu"] == pytest.approx(100)
    assert found["loss"] < 1e-6
    for key in list(knows.answers)[::2]:
        knows.answers[key] = torch.tensor([BEGIN, 5, END])
    assert task.evaluate(knows, "valid")["bleu"] < 60
    assert METRICS["bleu"].better == "more"


def test_smoothing_is_of_the_training_loss_and_padding_of_none(task: Translation) -> None:
    batch = next(iter(task.batches("valid", size=33, seed=0, epoch=0)))
    (source, before), after = batch
    plain, net = task.smoothed(0.0), _Knows(task)
    assert plain.loss(net, batch) < 1e-6 < task.loss(net, batch)
    more = (source, torch.cat([before, torch.zeros(33, 3, dtype=torch.int64)], dim=1))
    longer = torch.cat([after, torch.zeros(33, 3, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(task.loss(net, (more, longer)), task.loss(net, batch))
    assert tasks.smoothed(task, 0.2).describe()["label_smoothing"] == 0.2
    with pytest.raises(UserError, match="label_smoothing=1"):
        task.smoothed(1.0)


def test_split_seeds_are_for_data_without_a_validation_file(folder: Path) -> None:
    with pytest.raises(UserError, match="split_seed=3"):
        tasks.get(f"multi30k:{folder}?vocabulary=80", split_seed=3)


@pytest.mark.parametrize("arch", range(2))
def test_going_on_from_what_was_computed_is_the_same_as_anew(task: Translation, arch: int) -> None:
    net, few = network(arch).eval(), task.data.valid
    few = Pairs(few.source[:6], few.target[:6], few.text[:6])
    small = Translation(replace(task.data, valid=few))
    assert small.evaluate(net, "valid") == small.evaluate(lambda *x: net(*x), "valid")
    source = task.data.valid.source[:3]
    so_far = torch.randint(1, 80, (3, 7))
    with torch.no_grad():
        following = net.follow(source)
        steps = torch.stack([following(so_far[:, : i + 1]) for i in range(7)], dim=1)
        torch.testing.assert_close(steps, net(source, so_far))


# ---------------------------------------------------------------------- training and searching


def test_a_small_translator_learns(task: Translation, tmp_path: Path) -> None:
    space = spaces.get(SPACE.replace("0.05", "0.1"))
    torch.manual_seed(0)
    net = space.network(space.canonical((0,) * len(space.slots)))
    recipe = Recipe(optimiser="adamw", epochs=12, batch_size=12, lr=4e-3, evaluate_every=0)
    with Run(tmp_path / "run", {}) as run:
        before = task.evaluate(net.eval(), "valid")
        found = train(net, task, recipe, run, split="train", evaluate="valid")
    assert found["metric"] == "bleu"
    assert found["value"] > before["bleu"] + 2
    assert found["loss"] < 0.4 * before["loss"]


def test_a_supernet_grades_translators(task: Translation, tmp_path: Path) -> None:
    space = spaces.get(SPACE)
    with Run(tmp_path / "run", {}) as run:
        supernet = train_supernet(space, tasks.for_search(task), run, epochs=1, batch_size=60)
        score = SupernetScore(space, supernet, tasks.for_search(task))
        archs = space.sample(np.random.default_rng(0), 3)
        assert score.metric.name == "bleu"
        alone = [task.evaluate(supernet.extract(arch).eval(), "valid")["bleu"] for arch in archs]
        np.testing.assert_array_equal(score(archs), alone)


@pytest.mark.parametrize(
    ("space", "data", "words"),
    [
        ("supertransformer?source=80&width=0.05", "text", ("target 32768 (data: 80)", "add ?target=80")),
        (SPACE.replace("source=80", "source=9"), "text", ("source 9 (data: 80)", "add ?source=80")),
        (SPACE, "digits", ("takes text", "images")),
        ("mobilenet:tiny", "text", ("takes images", "text")),
    ],
)
def test_spaces_that_do_not_fit_are_refused(task: Translation, space: str, data: str, words: tuple[str, ...]) -> None:
    given = task if data == "text" else tasks.get(data)
    for view in (given, tasks.for_search(given)):
        with pytest.raises(UserError) as error:
            workflow.fits_task(spaces.get(space), view)
        assert all(word in str(error.value) for word in words)
    workflow.fits_task(spaces.get(SPACE).restrict({0: [1]}), task)


def test_the_whole_way_on_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARTOR_STORE", str(tmp_path / "store.db"))
    data = f"multi30k:{folder}?vocabulary=80"
    small = ["--set", "epochs=1", "--set", "batch_size=60"]
    asked = ["--set", "queries=8", "--set", "rounds=1", "--set", "members=[ridge]", "--set", "valid_batches=1"]
    words = [
        "mathnas",
        "--space",
        SPACE,
        "--data",
        data,
        "--budget",
        "0.4MMACs",
        "--run",
        "found",
        *small,
        *asked,
        "--target",
        "torch:cpu",
    ]
    found = done("search", *words)
    assert found["extras"]["quality"] == "bleu"
    assert found["predicted"]["macs"] <= 0.4e6
    assert found["measured"]["latency_ms"] > 0
    trained = done("train", "found", "--data", data, "--run", "trained", *small)
    assert (trained["metric"], trained["settings"]["optimiser"], trained["settings"]["lr"]) == ("bleu", "adamw", 1e-3)
    exported = done("export", "trained", "--run", "exported", "--format", "onnx", "--format", "safetensors")
    assert exported["files"].keys() >= {"onnx", "safetensors"}
    (model,) = Path("exported").glob("export/*.onnx")
    _, _, net = workflow.load_network(Path("trained"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = spaces.get(SPACE).inputs(1)
    given = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs)}
    with torch.no_grad():
        (outputs,) = session.run(None, given)
        torch.testing.assert_close(torch.from_numpy(outputs), net.eval()(*inputs), atol=1e-4, rtol=1e-3)


@needs_data
def test_real_pairs() -> None:
    task = tasks.get(f"multi30k:{SARTOR_DATA}/multi30k")
    assert task.describe()["examples"] == {"train": 28_990, "valid": 1_014, "test": 1_000}
    assert task.describe()["vocabularies"] == [4000, 4000]
    assert task.data.written(task.data.test.target) == list(task.data.test.text)  # type: ignore[union-attr]
