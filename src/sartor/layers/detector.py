"""SSDLite on the features of any network.

M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, 6.2; W. Liu et al., "SSD: Single
Shot MultiBox Detector", ECCV 2016. Head, boxes and extra blocks are those of torchvision's `ssdlite320`.
Of chains of blocks the maps between blocks are taken, which are narrow; MobileNetV2 and torchvision take the expansion
of the next block, which other blocks do not have.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from sartor.core.errors import UserError
from sartor.data.vision import import_torchvision
from sartor.layers.features import features_only, shapes

EXTRA = (512, 256, 256, 128)
FROM_BACKBONE = 2
_RATIOS, _SMALLEST, _LARGEST = [2, 3], 0.2, 0.95
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Detector(nn.Module):
    """Boxes and scores of an image: (B, C, S, S) -> (B, boxes, 4 + classes), corners in pixels, inside the image,
    scores from 0 to 1.

    In training mode: offsets and scores as they come, and the default boxes they are relative to, (B, boxes, 4 + 1 +
    classes + 4), the first class being background. backbone: a classifier, whose two coarsest maps are taken; behind
    them up to four more are made, each of half the resolution; x: an example of its input, which is square; classes:
    without background.
    """

    def __init__(self, backbone: nn.Module, x: Tensor, classes: int) -> None:
        super().__init__()
        import_torchvision()
        from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block

        self.features, size = features_only(backbone, x), x.shape[-1]
        maps = [shape for shape in shapes(self.features, x) if shape[-1] < size]
        if len(maps) < FROM_BACKBONE:
            raise UserError(
                f"this network has {len(maps)} maps smaller than the image, a detector takes {FROM_BACKBONE}; give a "
                "network that halves the resolution twice."
            )
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        (*_, _, edge), extra, before = maps[-1], [], maps[-1][0]
        channels, edges = [shape[0] for shape in maps[-FROM_BACKBONE:]], [shape[-1] for shape in maps[-FROM_BACKBONE:]]
        for width in EXTRA:
            if edge == 1:
                break
            extra.append(_extra_block(before, width, norm))
            before, edge = width, -(-edge // 2)
            channels.append(width)
            edges.append(edge)
        self.extra = nn.ModuleList(extra)
        for layer in self.extra.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.03)
        with torch.device("cpu"):  # some of its tensors are there whatever one builds on
            boxes = DefaultBoxGenerator([_RATIOS] * len(channels), min_ratio=_SMALLEST, max_ratio=_LARGEST)
            grids = [torch.empty(1, 1, edge, edge) for edge in edges]
            (anchors,) = boxes(ImageList(torch.empty(1, 1, size, size), [(size, size)]), grids)
        self.head = SSDLiteHead(channels, boxes.num_anchors_per_location(), classes + 1, norm)
        self.register_buffer("anchors", anchors.to(x.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.features(x)[-FROM_BACKBONE:])
        for block in self.extra:
            maps.append(block(maps[-1]))
        found = self.head(maps)
        offsets, scores, anchors = found["bbox_regression"], found["cls_logits"], self.anchors
        assert isinstance(anchors, Tensor)
        if self.training:
            return torch.cat((offsets, scores, anchors.expand(len(x), -1, -1)), -1)
        corners = _corners(offsets, anchors).clamp(0, x.shape[-1])
        return torch.cat((corners, scores.softmax(-1)[..., 1:]), -1)


def _corners(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (B, n, 4), by corners, from offsets to default boxes (n, 4): torchvision's `BoxCoder` of many images."""
    size, weights = anchors[:, 2:] - anchors[:, :2], offsets.new_tensor(WEIGHTS)
    offsets = offsets / weights
    middle = anchors[:, :2] + size / 2 + offsets[..., :2] * size
    half = offsets[..., 2:].clamp(max=4.135).exp() * size / 2  # log(1000 / 16)
    return torch.cat((middle - half, middle + half), -1)
