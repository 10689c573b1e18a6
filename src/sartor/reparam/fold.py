"""A network as it is deployed: grafted blocks collapsed, batch norms folded into the layer before them."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from sartor.reparam.graft import Grafted

M = TypeVar("M", bound=nn.Module)


def deployed(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode with the same outputs up to rounding, of plain layers."""
    if isinstance(network, Grafted):
        return fold_batch_norms(network.collapse()).eval()
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, Grafted):
            network.set_submodule(name, module.collapse())
    return fold_batch_norms(network)


def fold_batch_norms(network: M) -> M:
    """A copy in evaluation mode where a batch norm that follows a convolution or linear layer in a Sequential is gone.

    Exact up to rounding: W' = W * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for before, after in zip(range(len(module)), range(1, len(module))):
                layer, norm = module[before], module[after]
                if getattr(norm, "running_mean", None) is None:
                    continue  # no norm, or one of the batch
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[before], module[after] = fuse_conv_bn_eval(layer, norm), nn.Identity()
                elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                    module[before], module[after] = fuse_linear_bn_eval(layer, norm), nn.Identity()
    return network
