"""Images from bytes and files, resizing, and a torchvision that imports."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sartor.core.errors import UserError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MODES = {1: "L", 3: "RGB"}
_libraries: list[Any] = []


def import_torchvision() -> ModuleType:
    """The torchvision package, also where its compiled half does not load next to this torch.

    Such a wheel dies at import because operators it describes were never defined; defining their schemas is enough
    for its data sets and networks (the operators themselves stay unusable).
    Raises UserError when torchvision is missing or broken in another way.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise _broken(error) from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise _broken(error) from None
    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)  # the schemas live as long as their library
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise _broken(error) from None


def _broken(error: Exception) -> UserError:
    build = (torch.version.cuda and "cu" + torch.version.cuda.replace(".", "")) or "cpu"
    return UserError(
        f"torchvision cannot be imported ({str(error).partition(chr(10))[0]}); it must match torch "
        f"{torch.__version__}: pip install torchvision --index-url https://download.pytorch.org/whl/{build}."
    )


def decode(
    source: bytes | Path, where: str, *, channels: int | None, resolution: int | None = None, margin: float = 1.0
) -> npt.NDArray[np.uint8]:
    """An image as (H, W, C) uint8.

    where: names the image in errors; channels: 1 (grey) or 3 (RGB) converts, None takes grey and RGB as they are;
    resolution: scales the shorter side to resolution x margin, bilinear, and cuts the centre square of that size.
    Raises UserError for an unreadable image, or one that is neither grey nor RGB when `channels` is None.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if resolution is not None and channels is not None:
                edge = round(resolution * margin)
                image.draft(_MODES[channels], (edge, edge))  # JPEG: decode at a fraction of the size
            picture = image if channels is None else image.convert(_MODES[channels])
            if picture.mode not in _MODES.values():
                raise UserError(f"{where} has mode {picture.mode}, not grey or RGB; convert with channels=1 or 3.")
            if resolution is not None:
                picture = _square(picture, resolution, margin)
            array = np.asarray(picture)
    except UserError:
        raise
    except Exception as error:  # image decoders raise nearly anything on damaged input
        detail = str(error).partition("\n")[0][:100]
        raise UserError(f"{where} is not a readable image ({detail}); replace or remove it.") from None
    return array[:, :, None] if array.ndim == 2 else array


def _square(picture: Any, resolution: int, margin: float) -> Any:
    from PIL import Image

    width, height = picture.size
    scale = resolution * margin / min(width, height)
    width, height = max(resolution, round(width * scale)), max(resolution, round(height * scale))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return picture.crop((left, top, left + resolution, top + resolution))


def fits(count: int, channels: int, resolution: int) -> None:
    """Raises UserError where so many square images do not fit in this machine's memory."""
    size, memory = count * channels * resolution**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > 0.8 * memory:
        raise UserError(
            f"{count} images at resolution {resolution} take {size / 1e9:.1f} GB of {memory / 1e9:.1f} GB "
            "of memory; choose a smaller resolution."
        )


def resize(images: Tensor, resolution: int) -> Tensor:
    """(N, C, H, W) uint8 to (N, C, resolution, resolution) uint8, bilinear with anti-aliasing.

    Raises UserError when the result would not fit in this machine's memory.
    """
    if images.shape[-2:] == (resolution, resolution):
        return images
    fits(images.shape[0], images.shape[1], resolution)
    out = torch.empty((*images.shape[:2], resolution, resolution), dtype=torch.uint8)
    for first in range(0, len(images), 1024):
        part = images[first : first + 1024].float()
        part = functional.interpolate(part, (resolution, resolution), mode="bilinear", antialias=True)
        out[first : first + 1024] = part.round_().clamp_(0, 255).to(torch.uint8)
    return out


def stack(arrays: list[npt.NDArray[np.uint8]], where: list[str]) -> Tensor:
    """(H, W, C) arrays to one (N, C, H, W) tensor. Raises UserError, naming the image, when the sizes differ."""
    first = arrays[0].shape
    for array, name in zip(arrays, where):
        if array.shape != first:
            raise UserError(
                f"{name} is {_shape(array.shape)}, {where[0]} is {_shape(first)}; images of one set have one size and "
                "one kind: add resolution=... or channels=1|3."
            )
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} with {shape[2]} channel{'s' * (shape[2] > 1)}"


def whole(name: str, value: object, least: int = 1) -> int:
    """An option that must be a whole number of at least `least`. Raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"option {name}={value} must be a whole number of at least {least}; change it.")
    return value
