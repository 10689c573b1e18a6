"""Data sets from files: what is read, and the one line said about what cannot be."""

import gzip
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sartor.core import UserError
from sartor.data.sources import DATA, load
from sartor.data.vision import import_torchvision

SARTOR_DATA = os.environ.get("SARTOR_DATA")
needs_data = pytest.mark.skipif(SARTOR_DATA is None, reason="SARTOR_DATA names no folder with the real data")


def picture(value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode in ("L", "P") else (value, 0, 255 - value, 255)[: len(mode)]).save(buffer, form)
    return buffer.getvalue()


def refused(reference: str, *words: str) -> None:
    with pytest.raises(UserError) as error:
        load(reference)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), error.value


# ---------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("digitz", ("digits",)),
        ("digits:here", ("no path",)),
        ("digits?size=3", ("size", "resolution")),
        ("digits?name=x", ("unknown option", "'name'")),
        ("digits?resolution=big", ("resolution=big", "whole number")),
        ("digits?resolution=0", ("at least 1",)),
        ("digits?channels=2", ("channels=2", "3 (RGB)")),
        ("digits?resolution", ("key=value",)),
        ("parquet", ("parquet:PATH",)),
        ("parquet?path=x", ("parquet:PATH",)),
        ("parquet:x?path=y", ("unknown option", "'path'")),
        ("./missing", ("no data at ./missing",)),
        *((f"{n}:/missing/folder", ("/missing/folder",)) for n in DATA if n != "digits"),
        ("multi30k", ("multi30k:PATH",)),
    ],
)
def test_bad_references(reference: str, words: tuple[str, ...]) -> None:
    refused(reference, *words)


def test_unavailable_device() -> None:
    for device in ("cuda:99", "toaster"):
        with pytest.raises(UserError, match=device):
            load("digits", device)


def test_digits_and_resolution() -> None:
    data = load("digits")
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((1, 8, 8), 10, 1438, 359)
    big = load("digits?resolution=16")
    assert big.shape == (1, 16, 16)
    assert big.content != data.content
    assert load("digits").content == data.content


def test_resolution_beyond_memory() -> None:
    refused("digits?resolution=100000", "GB", "smaller resolution")


def test_torchvision_imports_and_runs_a_network() -> None:
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    from torchvision.models import squeezenet1_1

    assert squeezenet1_1(num_classes=3).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_cifar_folder_without_cifar(tmp_path: Path) -> None:
    refused(f"cifar10:{tmp_path}", "CIFAR-10", "cifar-10-batches-py")
    refused(f"cifar100:{tmp_path}", "CIFAR-100", "cifar-100-python")


# ---------------------------------------------------------------------- idx


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    for prefix, n in (("train", 40), ("t10k", 10)):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.arange(n * 28 * 28).reshape(n, 28, 28) % 251)
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(n) % 10)
    return tmp_path


def test_fashion(fashion: Path) -> None:
    data = load(f"fashion-mnist:{fashion}")
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((1, 28, 28), 10, 40, 10)
    assert load(str(fashion)).content == data.content
    file = fashion / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(f"fashion-mnist:{fashion}", str(file), "gzip")
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    refused(f"fashion-mnist:{fashion}", str(file), "cut short")
    idx(file, np.zeros((39, 28, 28)))
    refused(f"fashion-mnist:{fashion}", "39", "40")
    file.unlink()
    refused(f"fashion-mnist:{fashion}", str(file))


@needs_data
def test_real_fashion() -> None:
    data = load(f"fashion-mnist:{SARTOR_DATA}/fashion_mnist")
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((1, 28, 28), 10, 60_000, 10_000)
