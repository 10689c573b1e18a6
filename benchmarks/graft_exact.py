"""Whole networks collapse exactly: MobileNetV2 and ResNet-50, grafted at random, at 32, 97 and 224 pixels.

Must show (issue Domino, 1). Weights are random, batch norms have random weights and statistics drawn around those of
the images. Double precision: largest difference of logits between grafted and collapsed, relative to the largest logit.
Single precision: whether both answer the same class, on 1,000 random images of different brightness and grain, where
the two best logits are further apart than the largest difference seen; the classifier is centred on those images, so
that answers are of many classes.

Minutes a cell.

    python benchmarks/graft_exact.py [--network NAME] [--pixels N]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import Results, parser
from sartor.data.vision import import_torchvision
from sartor.reparam.blocks import Block, anatomy
from sartor.reparam.graft import Grafted, candidates, graft

NETWORKS, PIXELS = ("mobilenet_v2", "resnet50"), (32, 97, 224)
IMAGES, BATCH, DOUBLE, SEED = 1000, 50, 8, 0


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--network", choices=NETWORKS, help="one network")
    options.add_argument("--pixels", type=int, choices=PIXELS, help="one size")
    given = options.parse_args()
    results = Results(
        "graft_exact",
        "collapsed equals grafted to 1e-8 in double precision; the same class in single precision on 1,000 images",
        {"images": IMAGES, "double": DOUBLE, "seed": SEED},
    )
    for pixels in PIXELS if given.pixels is None else [given.pixels]:
        for network in NETWORKS if given.network is None else [given.network]:
            results.row({"network": network, "pixels": pixels}, lambda n=network, p=pixels: compared(n, p))
    results.summarise(rows=[{**row["cell"], **row} for row in results.data["rows"]])


def compared(name: str, pixels: int) -> dict[str, Any]:
    torch.manual_seed(SEED)
    network = import_torchvision().models.get_model(name, weights=None).double().eval()
    found, rng = anatomy(network), np.random.default_rng(SEED)
    chosen = {block.name: str(rng.choice(candidates(block))) for block in found.blocks}
    stages = [graft(s, chosen[s.name]) if isinstance(s, Block) else s for s in found.stages]
    grafted = nn.Sequential(*stages).eval()
    with torch.no_grad():
        some = torch.cat([x for x, _ in zip(images(pixels), range(2))]).double()
        disturbed(grafted, some)
        centred(grafted, some)
    collapsed = nn.Sequential(*(s.collapse() if isinstance(s, Grafted) else s for s in stages)).eval()
    with torch.no_grad():
        x = next(images(pixels))[:DOUBLE].double()
        right, got = grafted(x), collapsed(x)
        apart = float((got - right).abs().max() / right.abs().max())
        grafted.float(), collapsed.float()
        pairs = [(grafted(x), collapsed(x)) for x in images(pixels)]
    one, other = (torch.cat(side) for side in zip(*pairs))
    error = float((one - other).abs().max())
    best = one.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1]) > error
    same = (one.argmax(1) == other.argmax(1))[clear]
    return {
        "grafted": sum(word != "keep" for word in chosen.values()),
        "blocks": len(chosen),
        "double: largest relative difference": apart,
        "single: largest difference": error,
        "single: largest logit": float(one.abs().max()),
        "images": len(one),
        "images with a clear answer": int(clear.sum()),
        "of those the same class (%)": 100 * float(same.float().mean()),
        "classes answered": len(one.argmax(1).unique()),
    }


def disturbed(network: nn.Sequential, x: Tensor) -> None:
    """Draw what batch norms have learnt, and statistics around those of the images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
        norm.momentum = None
        norm.reset_running_stats()
    network.train()(x)
    for norm in norms:
        norm.running_mean += norm.running_var.sqrt() * torch.empty_like(norm.running_mean).uniform_(-0.3, 0.3)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    network.eval()


def images(pixels: int) -> Iterator[Tensor]:
    """Batches, the same every time: noise of every grain, each channel of a brightness of its own."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(IMAGES // BATCH):
        x = torch.zeros(BATCH, 3, pixels, pixels)
        for grain in (1, 2, 4, 8, 16, 32):
            small = torch.randn(BATCH, 3, -(-pixels // grain), -(-pixels // grain), generator=generator)
            share = torch.rand(BATCH, 1, 1, 1, generator=generator)
            x += share * nn.functional.interpolate(small, size=(pixels, pixels), mode="nearest")
        yield x + torch.randn(BATCH, 3, 1, 1, generator=generator)


def centred(network: nn.Sequential, x: Tensor) -> None:
    """Set the last linear layer to draw directions in what its inputs differ by."""
    (*_, last) = (module for module in network.modules() if isinstance(module, nn.Linear))
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x)
    handle.remove()
    features = seen[0]
    last.weight.copy_(torch.randn_like(last.weight) / (features.std(dim=0) + 1e-3) / features.shape[1] ** 0.5)
    last.bias.copy_(-last.weight @ features.mean(dim=0))


if __name__ == "__main__":
    main()
