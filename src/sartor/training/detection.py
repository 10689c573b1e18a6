"""The task of finding things: SSD's loss, and average precision by COCO's own evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sartor.core.errors import UserError, unknown
from sartor.core.task import Batch, Split
from sartor.core.units import METRICS
from sartor.data.coco import DetectionSet
from sartor.data.images import own_split
from sartor.data.tensors import epoch, normaliser, stream
from sartor.data.vision import import_torchvision
from sartor.layers.detector import WEIGHTS

_VALID_SHARE = 0.2
_EVALUATION_BATCH = 64
_OVERLAP, _NEGATIVES = 0.5, 3.0  # of a default box with what it is to find; background to things in the loss
_KEPT, _CANDIDATES, _LEAST, _SAME = 100, 300, 0.001, 0.55  # of torchvision's ssdlite320, but 100 as COCO counts


class Detection:
    """Finding things in images with networks of `spaces.detectors`.

    Batches are ((images (B, C, S, S) float32,), boxes (B, most, 6)), as in `DetectionSet`; those of training are
    mirrored half of the time. split_seed: which fifth of the training data is `valid`.
    """

    metric = METRICS["ap"]

    def __init__(self, data: DetectionSet, *, split_seed: int = 0) -> None:
        try:
            import pycocotools as _  # noqa: F401
        except ImportError:
            raise UserError("finding things is graded by pycocotools; pip install 'sartor[detection]'.") from None
        self.data, self.split_seed = data, split_seed
        self.device, self.classes, self.shape = data.device, len(data.things), data.shape
        train, valid = own_split(len(data.train), _VALID_SHARE, data.name, split_seed)
        if data.images is not None and data.images < len(data.train):
            kept = max(1, round(data.images * _VALID_SHARE))
            train, valid = train[: data.images - kept], valid[:kept]
        self._index = {"train": train, "valid": valid, "trainvalid": torch.cat((train, valid)),
                       "test": torch.arange(len(data.test))}  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Name, sizes, split seed and content fingerprint of the data; no paths."""
        return {
            "task": "detection",
            "data": self.data.name,
            "content": self.data.content,
            "classes": self.classes,
            "shape": list(self.shape),
            "examples": {split: self.length(split) for split in ("train", "valid", "test")},
            "split_seed": self.split_seed,
        }

    @property
    def normalisation(self) -> dict[str, Any]:
        """How pixels from 0 to 255 become inputs, (pixel - mean) / std by channel."""
        mean, std = (moment.flatten().tolist() for moment in self.data.moments)
        return {"pixels": [0, 255], "mean": mean, "std": std}

    def length(self, split: Split) -> int:
        """Number of images in a split."""
        return len(self._of(split))

    def batches(
        self, split: Split, *, size: int, seed: int, epoch: int, limit: int | None = None, plain: bool = False
    ) -> Iterable[Batch]:
        """Batches of one epoch; see `core.task.Task`."""
        mirrored = split in ("train", "trainvalid") and not plain
        draws = stream("mirror", seed, split, epoch)
        for (images,), boxes in self._plain(split, (seed, split, epoch), size, limit, shuffle=mirrored):
            if mirrored:
                turned = (torch.rand(len(images), generator=draws) < 0.5).to(images.device)
                images = torch.where(turned[:, None, None, None], images.flip(-1), images)
                other = boxes.clone()
                other[..., 1], other[..., 3] = images.shape[-1] - boxes[..., 3], images.shape[-1] - boxes[..., 1]
                boxes = torch.where(turned[:, None, None], other, boxes)
            yield (images,), boxes

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        """SSD's: cross-entropy of default boxes, background three to one by the hardest, and smooth L1 of offsets.

        A mean over the boxes of the batch; on several devices the mean of the devices' means.
        """
        import_torchvision()
        from torchvision.models.detection._utils import BoxCoder, SSDMatcher
        from torchvision.models.detection.ssd import SSD
        from torchvision.ops import box_iou

        (images,), boxes = batch
        found = net(images).float()
        offsets, scores, anchors = found.split([4, found.shape[-1] - 8, 4], -1)
        wanted, matched, matcher = [], [], SSDMatcher(_OVERLAP)
        for row in boxes:
            mine = row[(row[:, 0] > 0) & (row[:, 5] == 0)]
            wanted.append({"boxes": mine[:, 1:5], "labels": mine[:, 0].long()})
            nothing = torch.full((anchors.shape[1],), -1, device=boxes.device)
            matched.append(matcher(box_iou(mine[:, 1:5], anchors[0])) if len(mine) else nothing)
        given = SimpleNamespace(box_coder=BoxCoder(WEIGHTS), neg_to_pos_ratio=_NEGATIVES)
        said = {"bbox_regression": offsets, "cls_logits": scores.contiguous()}
        parts = SSD.compute_loss(given, wanted, said, [anchors[0]] * len(boxes), matched)
        total: Tensor = parts["bbox_regression"] + parts["classification"]
        return total

    def evaluate(self, net: Callable[..., Tensor], split: Split, *, limit: int | None = None) -> Mapping[str, float]:
        """`ap` in percent, the mean over overlaps of .5 to .95, `ap50`, and `loss`: 100 less `ap`, for it has no other.

        limit: at most that many batches of 64. Networks are in evaluation mode.
        """
        truth, found = [], []
        with torch.no_grad():
            for (images,), boxes in self._plain(split, (), _EVALUATION_BATCH, limit, shuffle=False):
                truth += list(boxes.cpu())
                found += [detections(one) for one in net(images).float().cpu()]
        ap, ap50 = average_precision(truth, found, self.classes)
        return {"ap": ap, "ap50": ap50, "loss": 100 - ap}

    def _plain(
        self, split: Split, names: tuple[str | int, ...], size: int, limit: int | None, *, shuffle: bool
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        index, data = self._of(split), self.data
        yield from epoch(
            data.test if split == "test" else data.train,
            index,
            names=names,
            size=size,
            limit=limit,
            shuffle=shuffle,
            augmentation="none",
            prepare=normaliser(*data.moments, data.device),
            device=data.device,
        )

    def _of(self, split: Split) -> Tensor:
        if split not in self._index:
            raise unknown("split", split, self._index)
        return self._index[split]


def detections(found: Tensor) -> Tensor:
    """What a network says of one image, (boxes, 4 + classes), without what says the same: (n, 6) label from 1, corners,
    score, the best first. Greedy non-maximum suppression by class."""
    import_torchvision()
    from torchvision.ops import box_iou

    corners, scores = found[:, :4], found[:, 4:].T
    score, index = scores.topk(min(_CANDIDATES, len(corners)))
    count = int((score > _LEAST).sum(1).max())
    score, boxes = score[:, :count], corners[index[:, :count]]
    same = torch.stack([box_iou(of, of) > _SAME for of in boxes]).tril(-1)  # (classes, n, n), as a better one
    kept = score > _LEAST
    for i in range(count):  # of all classes at once
        kept[:, i + 1 :] &= ~(same[:, i + 1 :, i] & kept[:, i, None])
    label = torch.arange(1.0, len(scores) + 1)[:, None].expand_as(score)
    every = torch.cat((label[kept][:, None], boxes[kept], score[kept][:, None]), 1)
    return every[every[:, 5].argsort(descending=True, stable=True)[:_KEPT]]


def average_precision(truth: list[Tensor], found: list[Tensor], classes: int) -> tuple[float, float]:
    """AP and AP50 in percent by pycocotools: boxes as in `DetectionSet` and as `detections` has them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    things = [
        {"image_id": i, "id": 1 + k, "category_id": int(row[0]), "bbox": _sides(row[1:5]), "iscrowd": int(row[5]),
         "area": float((row[3] - row[1]) * (row[4] - row[2]))}
        for k, (i, row) in enumerate((i, row) for i, rows in enumerate(truth) for row in rows if row[0] > 0)
    ]  # fmt: skip
    said = [
        {"image_id": i, "category_id": int(row[0]), "bbox": _sides(row[1:5]), "score": float(row[5])}
        for i, rows in enumerate(found)
        for row in rows
    ]
    if not said or all(thing["iscrowd"] for thing in things):
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": [{"id": i} for i in range(len(truth))],
            "annotations": things,
            "categories": [{"id": k + 1} for k in range(classes)],
        }
        known.createIndex()
        evaluator = COCOeval(known, known.loadRes(said), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return 100 * float(evaluator.stats[0]), 100 * float(evaluator.stats[1])


def _sides(corners: Tensor) -> list[float]:
    x1, y1, x2, y2 = corners.tolist()
    return [x1, y1, x2 - x1, y2 - y1]
