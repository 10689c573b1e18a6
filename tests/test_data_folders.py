"""Image folders and loaders: what is read, and the one line said about what cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sartor.core import UserError
from sartor.data.images import image_set
from sartor.data.lazy import Lazy
from sartor.data.sources import load
from sartor.training import tasks
from tests.test_data_sources import picture, refused


def folder(root: Path, classes: int, count: int = 5) -> Path:
    for c in range(classes):
        (root / f"class{c:02d}").mkdir(parents=True)
        for i in range(count):
            size = (10 + i, 12)  # no two of one size
            (root / f"class{c:02d}" / f"{i}.png").write_bytes(picture(c * 20, size, "L" if i == 0 else "RGB"))
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder(tmp_path / "train", 6)
    folder(tmp_path / "val", 6, 2)
    (tmp_path / "test").mkdir()  # without labels, as ImageNet's
    return tmp_path


def test_folders(pictures: Path) -> None:
    data = load(f"imagefolder:{pictures}?resolution=8")
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((3, 8, 8), 6, 30, 12)
    assert load(f"{pictures}?resolution=8").content == data.content
    single = load(f"imagefolder:{pictures / 'train'}?resolution=8")
    assert (single.classes, len(single.train), len(single.test)) == (6, 24, 6)


def test_folder_classes_by_a_named_stream(pictures: Path) -> None:
    few = [load(f"imagefolder:{pictures}?resolution=8&classes=3&seed={seed}") for seed in (0, 0, 1, 2, 3)]
    assert few[0].content == few[1].content
    assert len({data.content for data in few}) > 1
    assert all((d.classes, len(d.train), len(d.test)) == (3, 15, 6) for d in few)
    refused(f"imagefolder:{pictures}?classes=7", "6 classes", "7")
    refused(f"imagefolder:{pictures}?classes=1", "classes=1", "at least 2")


@pytest.mark.parametrize("workers", [0, 2])
def test_large_folders_go_through_workers(pictures: Path, workers: int) -> None:
    small = tasks.get(f"imagefolder:{pictures}?resolution=8")
    large = tasks.get(f"imagefolder:{pictures}?resolution=8&max_bytes=100&workers={workers}")
    assert isinstance(large.data.train, Lazy)
    for split in ("train", "test"):
        for a, b in zip(
            small.batches(split, size=4, seed=0, epoch=1), large.batches(split, size=4, seed=0, epoch=1), strict=True
        ):
            assert torch.equal(a[1], b[1])
            assert torch.allclose(a[0][0], b[0][0], atol=1e-5)
    damaged = next((pictures / "val" / "class03").iterdir())
    damaged.write_bytes(b"torn")
    with pytest.raises(UserError, match="not a readable image") as error:
        list(large.batches("test", size=4, seed=0, epoch=0))
    assert str(damaged) in str(error.value)
    assert "Traceback" not in str(error.value)
    refused(f"imagefolder:{pictures}?resolution=8", str(damaged))


def test_bad_folders(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (pictures / "val" / "stranger").mkdir()
    refused(f"imagefolder:{pictures}", "stranger")
    (pictures / "val" / "stranger").rmdir()
    (pictures / "train" / "hollow").mkdir()
    refused(f"imagefolder:{pictures}", "hollow", "no images")
    refused(f"imagefolder:{pictures}?workers=-1", "workers=-1")
    other = tmp_path_factory.mktemp("other")
    refused(f"imagefolder:{other}", "0 class folders")
    folder(other / "train", 1)
    refused(f"imagefolder:{other}", "1 class folders", "at least two")
    folder(other / "train" / "more", 1)
    (other / "train" / "more").rename(other / "train" / "class01")
    refused(f"imagefolder:{other}", "no test/ or val/")


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Random transforms, as torchvision's, from torch's global numbers."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 4, 4), float(i)) + torch.rand(1), i % 4


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


def test_loaders_are_read_in_our_order_and_reproducibly() -> None:
    plain = DataLoader(TensorDataset(torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 4, 4), torch.arange(64) % 4))
    task = tasks.from_loaders(DataLoader(Noisy(), batch_size=3), plain, classes=4)
    assert (task.shape, task.length("train"), task.length("test")) == ((1, 4, 4), 32, 64)
    before = torch.random.get_rng_state()
    runs = [list(task.batches("train", size=8, seed=0, epoch=e)) for e in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(runs[0], runs[1]))
    assert not any(torch.equal(a[0][0], b[0][0]) for a, b in zip(runs[0], runs[2]))
    assert all(torch.equal(x[:, 0, 0, 0].long() % 4, t) for (x,), t in runs[0])


def test_bad_loaders() -> None:
    good = DataLoader(Noisy())
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: tasks.from_loaders(good, DataLoader(Stream()), classes=4), "stream"),
        (lambda: tasks.from_loaders(good, good, classes=1), "at least 2"),
        (
            lambda: tasks.from_loaders(good, DataLoader(TensorDataset(torch.zeros(3, 4), torch.zeros(3))), classes=4),
            "C, H",
        ),
        (lambda: list(tasks.from_loaders(good, good, classes=3).batches("test", size=40, seed=0, epoch=0)), "0 to 3"),
    ]
    for call, words in cases:
        with pytest.raises(UserError, match=words):
            call()


def test_empty_parts() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    with pytest.raises(UserError, match="no test images"):
        image_set("x", (images, labels), (images[:0], labels[:0]), augmentation="none")
    few = image_set("x", (images[:2], labels[:2]), (images, labels), augmentation="none")
    with pytest.raises(UserError, match="at least 4"):
        tasks.Classification(few)
