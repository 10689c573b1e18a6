"""Batches are a pure function of names; augmentation and statistics do what they say."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from sartor.core import Split
from sartor.data.images import image_set, own_split
from sartor.data.sources import load
from sartor.data.tensors import Tensors, augment, statistics, stream_seed
from sartor.training import tasks

_CHILD = """
import hashlib
from sartor.training import tasks
digest = hashlib.sha256()
for split in ("train", "valid"):
    for (images,), labels in tasks.get("digits").batches(split, size=100, seed=3, epoch=2):
        digest.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
print(digest.hexdigest())
"""


def test_batches_are_the_same_in_another_process_with_another_hash_seed() -> None:
    digests = set()
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed[0]}
        done = subprocess.run(
            [sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_named_streams_differ_by_every_name() -> None:
    names = [("a",), ("a", 0), ("a", 1), ("a", "1"), ("a1",), ("b", 0)]
    assert len({stream_seed(*n) for n in names}) == len(names)


def test_train_and_valid_are_disjoint_and_together_trainvalid() -> None:
    first, second = own_split(1000, 0.2, "x", 0)
    assert len(second) == 200
    assert torch.equal(torch.cat((first, second)).sort().values, torch.arange(1000))
    assert not torch.equal(second, own_split(1000, 0.2, "x", 1)[1])
    task = tasks.get("digits")

    def images(split: Split) -> set[bytes]:  # unaugmented, through evaluation
        seen: list[Tensor] = []

        def network(x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 10)

        task.evaluate(network, split)
        return {image.numpy().tobytes() for image in torch.cat(seen)}

    train, valid = images("train"), images("valid")
    assert train | valid == images("trainvalid")
    assert len(train & valid) == 0


def test_a_limited_evaluation_sees_all_classes_of_sorted_data() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    part = (torch.zeros(200, 1, 4, 4, dtype=torch.uint8), labels)
    task = tasks.Classification(image_set("sorted", part, part, augmentation="none"))
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        _, seen = next(iter(task.batches(split, size=40, seed=0, epoch=0)))
        assert len(torch.unique(seen)) > 5


def test_shift_moves_by_at_most_the_padding_and_flips_half() -> None:
    images = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 8, 4] = 255
    moved = augment(images, torch.rand(400, 5), "shift_flip")
    assert moved.dtype == torch.uint8
    _, _, row, column = moved.nonzero().unbind(1)
    assert row.min() == 6
    assert row.max() == 10
    assert set(column.tolist()) == {*range(2, 7), *range(9, 14)}
    assert 130 < (column > 8).sum() < 270
    plain = augment(images, torch.rand(400, 5), "shift").nonzero()[:, 3]
    assert set(plain.tolist()) == set(range(2, 7))


def test_shift_agrees_with_cropping_one_by_one() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 12), dtype=torch.uint8)
    draws = torch.rand(20, 5)
    got = augment(images, draws, "shift_flip")
    for i in range(20):
        y, x = (int(v) for v in draws[i, :2] * 3)
        crop = torch.nn.functional.pad(images[i], (1, 1, 1, 1))[:, y : y + 8, x : x + 12]
        assert torch.equal(got[i], crop.flip(2) if draws[i, 2] < 0.5 else crop)


def test_crop_keeps_shape_range_and_constant_images() -> None:
    flat = torch.full((8, 3, 20, 20), 90, dtype=torch.uint8)
    assert torch.allclose(augment(flat, torch.rand(8, 5), "crop_flip"), torch.full((8, 3, 20, 20), 90.0), atol=1e-3)
    ramp = torch.arange(20, dtype=torch.uint8).expand(50, 1, 20, 20)
    out = augment(ramp, torch.rand(50, 5), "crop_flip")
    assert out.shape == ramp.shape
    assert out.min() >= 0
    assert out.max() <= 19
    rising = out[:, 0, 0, -1] > out[:, 0, 0, 0]
    assert 10 < rising.sum() < 40


def test_statistics_match_torch_and_normalise() -> None:
    images = torch.randint(0, 256, (3000, 3, 5, 5), dtype=torch.uint8)
    mean, std = statistics(images)
    assert torch.allclose(mean, images.double().mean((0, 2, 3)).float())
    assert torch.allclose(std, images.double().std((0, 2, 3), unbiased=False).float())
    labels = torch.arange(3000) % 2
    task = tasks.Classification(image_set("noise", (images, labels), (images, labels), augmentation="none"))
    x = torch.cat([x for (x,), _ in task.batches("trainvalid", size=500, seed=0, epoch=0)])
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=1e-3)


def test_batches_do_not_change_the_data() -> None:
    data = load("digits")
    assert isinstance(data.train, Tensors)
    before = data.train.images.clone()
    for _ in tasks.Classification(data).batches("train", size=64, seed=0, epoch=0):
        pass
    assert torch.equal(before, data.train.images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_sees_the_batches_of_the_cpu() -> None:
    on_cpu, on_gpu = tasks.get("digits"), tasks.get("digits", "cuda")
    for a, b in zip(
        on_cpu.batches("train", size=64, seed=0, epoch=0), on_gpu.batches("train", size=64, seed=0, epoch=0)
    ):
        assert b[0][0].device.type == "cuda"
        assert torch.allclose(a[0][0], b[0][0].cpu(), atol=1e-5)
        assert torch.equal(a[1], b[1].cpu())
