"""Features of every space, detectors on them, data in COCO's format, average precision."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from sartor import cli, spaces, tasks
from sartor.core import UserError
from sartor.data.vision import import_torchvision
from sartor.layers.features import features_only, shapes
from sartor.runs import Run
from sartor.spaces.channels import Channels
from sartor.spaces.detectors import Detectors
from sartor.spaces.uniform import Uniform
from sartor.training.detection import average_precision, detections
from sartor.training.loop import train
from sartor.training.recipe import Recipe
from sartor.workflow.networks import for_task
from tests.contracts.spaces import check_space

EDGE = 32
SPACES = [
    "mobilenet:tiny?resolution=32&channels=3",
    "shufflenet:tiny?resolution=32&channels=3",
    "nas-bench-macro?width=0.25",
    "nas-bench-201?cells=1&width=8",
    "expanded?depth=2&width=8&stem=8&resolution=32",
    "mobilenetv3",
    "supervit",
    "grafts?model=torchvision:resnet18",
]


@pytest.mark.parametrize("reference", SPACES)
def test_every_space_of_images_offers_its_maps_and_detectors(reference) -> None:
    space = spaces.get(reference)
    (arch,) = space.sample(np.random.default_rng(0), 1)
    network, (x,) = space.network(arch), space.inputs(2, arch)
    features = features_only(network, x)
    assert features.training == network.training
    sizes = [shape[-1] for shape in shapes(features, x)]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) > 1
    names = {id(p) for p in network.parameters()}
    assert all(id(p) in names for p in features.parameters()), "they are the network's own layers"
    detector = Detectors(space, 3).network(arch).eval()
    found = detector(x)
    assert found.shape == (2, len(detector.anchors), 7)
    torch.testing.assert_close(Detectors(space, 3).deploy(detector)(x), found, atol=1e-3, rtol=1e-3)


def test_the_last_map_is_what_is_pooled() -> None:
    space = spaces.get(SPACES[0])
    network, (x,) = space.network((0,) * 9).eval(), space.inputs(2)
    last = features_only(network, x)(x)[-1]
    torch.testing.assert_close(network[-1][3:](last), network(x))


def test_maps_of_traced_networks_end_where_they_are_pooled_and_have_channels_first() -> None:
    vision = import_torchvision()
    x = torch.randn(1, 3, 64, 64)
    plain = shapes(features_only(vision.models.vgg11(), x), x)
    assert plain[-1] == (512, 2, 2), "what is pooled up from it is none"
    assert all(c > h == w for c, h, w in shapes(features_only(vision.models.convnext_tiny(), x), x))


def test_detectors_keep_the_contract_and_text_has_no_maps() -> None:
    check_space(Detectors(spaces.get(SPACES[0]), 3))
    with pytest.raises(UserError, match=r"traced|maps"):
        features_only(spaces.get("supertransformer").network((0,) * 13), torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="halves the resolution twice"):
        Detectors(spaces.get("expanded?depth=2&width=8&stem=8&resolution=32&strides=1-1-2"), 3).network((0,) * 6)


def things(place: Path, count: int, seed: int) -> dict:
    """Bright squares (1) and dark ones (2) on grey."""
    rng, images, boxes = np.random.default_rng(seed), [], []
    for i in range(count):
        picture = np.full((48, 64, 3), 128, np.uint8)
        for label, shade in ((7, 255), (9, 0)):
            side = int(rng.integers(14, 22))
            x, y = int(rng.integers(0, 32 - side) + (label == 9) * 32), int(rng.integers(0, 48 - side))
            picture[y : y + side, x : x + side] = shade
            boxes.append({"id": len(boxes), "image_id": i, "category_id": label, "bbox": [x, y, side, side]})
        Image.fromarray(picture).save(place / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
    kinds = [{"id": 7, "name": "bright"}, {"id": 9, "name": "dark"}]
    return {"images": images, "annotations": boxes, "categories": kinds}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for word, count in (("train2017", 80), ("val2017", 24)):
        (root / word).mkdir()
        told = things(root / word, count, len(word))
        (root / "annotations" / f"instances_{word}.json").write_text(json.dumps(told))
    return root


def test_boxes_are_scaled_and_mirrored_with_their_images(folder) -> None:
    task = tasks.get(f"coco:{folder}?resolution={EDGE}")
    assert (task.classes, task.shape) == (2, (3, EDGE, EDGE))
    assert task.length("train") + task.length("valid") == 80
    for split in ("test", "train"):
        for (images,), boxes in task.batches(split, size=16, seed=0, epoch=0):
            for image, rows in zip(images, boxes):
                for label, x1, y1, x2, y2, _ in rows[rows[:, 0] > 0].tolist():
                    middle = image[:, int((y1 + y2) / 2), int((x1 + x2) / 2)]
                    assert bool((middle > image.mean()).all()) == (label == 1)


def test_precision_is_a_hundred_for_the_truth_and_falls_with_what_is_wrong() -> None:
    truth = [torch.tensor([[1.0, 2, 2, 12, 12, 0], [2, 15, 15, 30, 30, 0], [0, 0, 0, 0, 0, 0]])] * 3
    right = [torch.tensor([[1.0, 2, 2, 12, 12, 0.9], [2, 15, 15, 30, 30, 0.8]])] * 3
    assert average_precision(truth, right, 2) == pytest.approx((100, 100))
    swapped = [torch.tensor([[2.0, 2, 2, 12, 12, 0.9], [1, 15, 15, 30, 30, 0.8]])] * 3
    assert average_precision(truth, swapped, 2) == pytest.approx((0, 0))
    shifted = [torch.tensor([[1.0, 3, 2, 13, 12, 0.9], [2, 15, 15, 30, 30, 0.8]])] * 3
    ap, ap50 = average_precision(truth, shifted, 2)
    assert 50 < ap < 100
    assert ap50 == pytest.approx(100)
    assert average_precision(truth, [torch.zeros(0, 6)] * 3, 2) == (0, 0)


def test_what_says_the_same_is_left_out() -> None:
    same = torch.tensor([[0.0, 0, 10, 10, 0.9, 0.0], [0, 0, 10, 9.5, 0.8, 0.0], [20, 20, 30, 30, 0.0, 0.7]])
    found = detections(same)
    assert found[:, 0].tolist() == [1, 2]
    assert found[:, 5].tolist() == pytest.approx([0.9, 0.7])
    torch.manual_seed(0)
    corners, scores = torch.rand(60, 4).cumsum(1) * 10, torch.rand(60, 3)
    kept = detections(torch.cat((corners, scores), 1))
    for label in range(3):  # greedily, one class after another
        alone = torch.zeros_like(scores)
        alone[:, label] = scores[:, label]
        one = detections(torch.cat((corners, alone), 1))
        assert torch.equal(one, kept[kept[:, 0] == label + 1])


def test_a_detector_learns_to_find(folder, tmp_path) -> None:
    task = tasks.get(f"coco:{folder}?resolution={EDGE}")
    space = Detectors(spaces.get(SPACES[0]), task.classes)
    torch.manual_seed(0)
    network = space.network((1, 0, 0, 1, 0, 0, 1, 0, 0))
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, evaluate_every=0)
    with Run(tmp_path / "run", {}) as run:
        found = train(network, task, recipe, run.stage("train"), split="trainvalid")
    assert found["metric"] == "ap"
    assert found["value"] > 20


def test_from_a_network_to_a_detector_s_file(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARTOR_PROGRESS", "0")
    space = spaces.get("mobilenet:tiny?channels=3")
    (tmp_path / "a.json").write_text(json.dumps(space.to_json((0,) * 9)))

    def run(*words: str) -> dict:
        out = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["sartor", *words, "--json"])
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as done:
            cli.main()
        assert not done.value.code
        return json.loads(out.getvalue())

    data = f"coco:{folder}?resolution={EDGE}"
    trained = run("train", "a.json", "--data", data, "--set", "epochs=1", "--run", "t")
    assert trained["metric"] == "ap"
    assert trained["macs"] > 0
    files = run("export", "t", "--format", "onnx", "--format", "int8", "--data", data, "--run", "e")["files"]
    x = torch.randn(1, 3, EDGE, EDGE)
    for file in files.values():
        session = onnxruntime.InferenceSession(file["path"], providers=["CPUExecutionProvider"])
        (found,) = session.run(["output"], {"input0": x.numpy()})
        assert found.shape[-1] == 6
    told = run("measure", "t", "--store", "m.db", "--run", "m")
    assert told["members"][0]["latency_ms"] > 0


def annotations(root: Path, word: str = "train2017") -> Path:
    return root / "annotations" / f"instances_{word}.json"


def change(root: Path, how) -> None:
    told = json.loads(annotations(root).read_text())
    how(told)
    annotations(root).write_text(json.dumps(told))


def test_boxes_outside_the_image_and_hardly_inside_are_left_out(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    strange = [[70.0, 5.0, 20.0, 20.0], [63.999, 5.0, 20.0, 20.0], [60.0, 5.0, 20.0, 20.0]]  # of images 64 x 48
    more = [{"id": 9000 + i, "image_id": 0, "category_id": 7, "bbox": box} for i, box in enumerate(strange)]
    change(tmp_path / "data", lambda told: told["annotations"].extend(more))
    (before, after) = (tasks.get(f"coco:{root}?resolution={EDGE}").data.train for root in (folder, tmp_path / "data"))
    assert (after.labels[:, :, 0] > 0).sum() == (before.labels[:, :, 0] > 0).sum() + 1
    assert after.labels[0, 2].tolist() == pytest.approx([1, 30, 5 * EDGE / 48, 32, 25 * EDGE / 48, 0])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: (root / "annotations" / "instances_val2017.json").unlink(), "no .*instances_val"),
        (lambda root: (root / "annotations" / "instances_train2017.json").write_text("{}"), "no list of images"),
        (lambda root: next((root / "train2017").glob("*.png")).unlink(), "no image"),
        (lambda root: shutil.copy(annotations(root), annotations(root, "train2014")), "leave one"),
        (lambda root: change(root, lambda told: told["categories"].clear()), "no categories"),
        (lambda root: change(root, lambda told: told["categories"][0].pop("name")), "damaged"),
        (lambda root: change(root, lambda told: told["annotations"][0].update(category_id=None)), "damaged"),
        (lambda root: change(root, lambda told: told["annotations"][0].update(category_id=3)), "category 3"),
        (lambda root: change(root, lambda told: told["annotations"][0].update(image_id="3")), "image '3'"),
        (lambda root: change(root, lambda told: told.update(images=told["images"][:2])), "2 images"),
    ],
)
def test_damaged_folders_are_named(folder, tmp_path, break_it, words) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    break_it(tmp_path / "broken")
    with pytest.raises(UserError, match=words):
        tasks.get(f"coco:{tmp_path / 'broken'}")


@pytest.mark.parametrize(
    "space",
    [
        spaces.get("mobilenet:tiny").restrict({0: [1, 2]}),
        Channels(spaces.get("mobilenet:tiny"), (1,) * 9),
        Uniform(preset="tiny", layers=9, widths=[0.5], resolutions=[16]),
    ],
    ids=lambda space: space.name,
)
def test_backbones_are_brought_to_the_size_of_the_images(folder, space) -> None:
    task = tasks.get(f"coco:{folder}?resolution=64")
    found = for_task(space, task)
    (arch,) = space.sample(np.random.default_rng(0), 1)
    (x,) = found.inputs(1, arch)
    assert tuple(x.shape[1:]) == task.shape
    assert found.network(arch).eval()(x).shape[-1] == 6


def test_a_detector_is_trained_on_two_devices(folder, tmp_path) -> None:
    task = tasks.get(f"coco:{folder}?resolution={EDGE}")
    network = Detectors(spaces.get(SPACES[0]), task.classes).network((0,) * 9)
    recipe = Recipe(epochs=1, batch_size=16, lr=0.01, evaluate_every=0)
    with Run(tmp_path / "run", {}) as run:
        found = train(network, task, recipe, run.stage("train"), split="trainvalid", devices=2)
    assert np.isfinite(found["value"])


def test_data_with_boxes_are_refused_where_images_are_classified(folder) -> None:
    from sartor.workflow import fits_task

    task = tasks.get(f"coco:{folder}?resolution={EDGE}")
    with pytest.raises(UserError, match="images with boxes"):
        fits_task(spaces.get(SPACES[0]), task)


def test_norms_of_a_deployed_detector_are_folded() -> None:
    space = Detectors(spaces.get(SPACES[0]), 3)
    deployed = space.deploy(space.network((0,) * 9))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())
