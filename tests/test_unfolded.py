"""Networks as they are trained, beside those that are deployed."""

import numpy as np
import torch
from torch import nn

from sartor import spaces, targets
from sartor.core import METRICS, Budget, Found, FunctionScore, Landed
from sartor.spaces.unfolded import Unfolded
from sartor.targets.store import Store
from sartor.workflow import remeasure_unfolded
from tests.contracts.spaces import check_space

SPACE = spaces.get("mobilenet:tiny")
ARCH = (1, 2, 3, 4, 5, 0, 1, 2, 3)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_norms_stay_and_outputs_are_the_same() -> None:
    whole, network = Unfolded(SPACE), SPACE.network(ARCH).eval()
    check_space(whole)
    (x,) = SPACE.inputs(2)
    folded, left = SPACE.deploy(network), whole.deploy(network)
    assert norms(folded) == 0
    assert norms(left) == norms(network) > 0
    torch.testing.assert_close(folded(x), left(x), atol=1e-5, rtol=1e-4)


def test_the_winner_is_measured_both_ways(tmp_path) -> None:
    cost = FunctionScore(SPACE, METRICS["latency_ms"], lambda s, arch: 1.0)
    landed = Landed(ARCH, {"latency_ms": 1.0}, "argmax")
    found = Found(SPACE, "spos", (Budget(cost, 2.0),), landed, landed)
    with Store(tmp_path / "m.db") as store:
        told = remeasure_unfolded(found, targets.get("torch:cpu"), store, "s")
        assert told["latency_ms"] > 0
        assert remeasure_unfolded(found, targets.get("onnxruntime:cpu"), store, "s") == {}
        text = spaces.get("supertransformer")
        first = Landed(text.sample(np.random.default_rng(0), 1)[0], {}, "argmax")
        assert remeasure_unfolded(Found(text, "spos", (), first, first), targets.get("torch:cpu"), store, "s") == {}
