"""Image tables: what is read, and the one line said about what cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sartor.data.sources import load
from sartor.training import tasks
from tests.test_data_sources import SARTOR_DATA, needs_data, picture, refused


def table(path: Path, n: int = 30, column: str = "png", **changes: Any) -> None:
    rows: dict[str, Any] = {"label": np.arange(n) % 3, column: [picture(i % 3 * 90) for i in range(n)]}
    rows |= changes
    pd.DataFrame({k: v for k, v in rows.items() if v is not None}).to_parquet(path)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    table(tmp_path / "toy_train.parquet")
    table(tmp_path / "toy_test.parquet", 9)
    return tmp_path


def test_parquet_by_folder_prefix_and_file(tables: Path) -> None:
    by = [load(f"parquet:{tables}{rest}") for rest in ("", "/toy", "/toy_train.parquet")]
    assert len({data.content for data in by}) == 1
    assert (by[0].name, by[0].shape, by[0].classes, len(by[0].test)) == ("toy", (3, 8, 8), 3, 9)
    assert load(str(tables)).content == load(str(tables / "toy_train.parquet")).content == by[0].content
    (tables / "toy_train.parquet").rename(tables / "mine.parquet")
    assert load(f"parquet:{tables}/mine.parquet?test=toy_test.parquet").content == by[0].content
    refused(f"parquet:{tables}/mine.parquet", "?test=FILE")
    refused(f"parquet:{tables}/mine.parquet?test=no.parquet", "no.parquet")
    refused(f"parquet:{tables}", "one *_train.parquet", "none")


def test_parquet_jpeg_is_named_and_resized(tmp_path: Path) -> None:
    for part, n in (("train", 6), ("test", 3)):
        table(
            tmp_path / f"cifar10_{part}.parquet", n, jpeg=[picture(i % 3 * 90, form="JPEG") for i in range(n)], png=None
        )
    data = load(f"parquet:{tmp_path}?resolution=12&channels=1")
    assert (data.name, data.shape) == ("CIFAR-10 (JPEG)", (1, 12, 12))
    assert load(f"parquet:{tmp_path}?name=Toy").name == "Toy"


def test_parquet_of_structs(tables: Path) -> None:
    before = load(f"parquet:{tables}").content
    cells = [{"bytes": picture(i % 3 * 90), "path": str(i)} for i in range(30)]
    table(tables / "toy_train.parquet", image=cells, png=None)
    assert load(f"parquet:{tables}").content == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": None}, ("toy_train.parquet", "label", "png")),
        ({"png": None}, ("jpeg", "png", "image")),
        ({"label": [0.0, float("nan"), *[1.0] * 28]}, ("label nan of row 1",)),
        ({"label": [0.5, *[1.0] * 29]}, ("label 0.5 of row 0",)),
        ({"label": ["cat"] * 30}, ("not numbers",)),
        ({"label": [0, -1, *[1] * 28]}, ("label -1", "image 1", "0 to 1")),
        ({"label": [0] * 30}, ("one class",)),
        ({"label": np.arange(30) % 2}, ("label 2 of test image 2", "0 to 1")),
        ({"png": [b"nonsense"] * 30}, ("png of row 0", "not a readable image")),
        ({"png": [picture(1)] * 29 + [picture(1)[:-30]]}, ("png of row 29", "not a readable image")),
        ({"png": [picture(1)] * 29 + [None]}, ("row 29", "no bytes")),
        ({"png": [picture(1)] * 29 + [picture(1, (9, 7))]}, ("row 29 is 9x7", "resolution=")),
        ({"png": [picture(1)] * 29 + [picture(1, mode="L")]}, ("row 29", "1 channel,", "channels=1|3")),
        ({"png": [picture(1, mode="L")] * 30}, ("training images are (1, 8, 8)", "test images (3, 8, 8)")),
        ({"png": [picture(1, mode="RGBA")] * 30}, ("mode RGBA", "channels=")),
    ],
)
def test_bad_tables(tables: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    table(tables / "toy_train.parquet", **changes)
    refused(f"parquet:{tables}", *words)


def test_parquet_options_and_damage(tables: Path) -> None:
    refused(f"parquet:{tables}?channels=2", "channels=2")
    refused(f"parquet:{tables}?classes=2", "label 2", "0 to 1")
    assert load(f"parquet:{tables}?classes=7").classes == 7
    table(tables / "toy_test.parquet", 0)
    refused(f"parquet:{tables}", "toy_test.parquet", "no rows")
    (tables / "toy_test.parquet").write_bytes(b"PAR1 torn")
    refused(f"parquet:{tables}", "toy_test.parquet", "restore")


@needs_data
def test_real_cifar10() -> None:
    data = load(f"parquet:{SARTOR_DATA}/cifar10")
    assert (data.name, data.shape, data.classes) == ("CIFAR-10 (JPEG)", (3, 32, 32), 10)
    assert (len(data.train), len(data.test)) == (50_000, 10_000)
    (images,), labels = next(iter(tasks.Classification(data).batches("train", size=256, seed=0, epoch=0)))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert len(torch.unique(labels)) == 10
