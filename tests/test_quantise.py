"""Networks of 8 bits: what is measured is what is deployed, and calibration keeps what they say."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from sartor import spaces, targets
from sartor.export import onnx_model, quantised
from sartor.spaces.detectors import Detectors
from sartor.targets.pack import Packed, pack_onnx

SPACE = spaces.get("mobilenet:tiny")


def session(model: bytes, **options) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def optimised(model: bytes, file) -> Counter:
    session(model, optimized_model_filepath=str(file))
    return Counter(node.op_type for node in onnx.load(file).graph.node)


@pytest.mark.parametrize("reference", ["mobilenet:tiny", "shufflenet:tiny", "nas-bench-201?cells=1&width=8"])
def test_parts_quantised_alone_and_stitched_are_the_network_quantised_as_a_whole(reference, tmp_path) -> None:
    space = spaces.get(reference)
    (arch,) = space.sample(np.random.default_rng(0), 1)
    (plain,), (eight,) = (pack_onnx(space, [arch], 1, precision=of) for of in ("fp32", "int8"))
    assert isinstance(plain, Packed)
    assert isinstance(eight, Packed)
    whole = quantised(onnx.load_model_from_string(plain.model)).SerializeToString()
    kinds = [optimised(model, tmp_path / "o.onnx") for model in (whole, eight.model)]
    assert kinds[0] == kinds[1]
    assert kinds[0]["QLinearConv"] > 3
    assert kinds[0]["Conv"] == 0
    feed = {"input0": eight.inputs[0].numpy()}
    assert np.array_equal(*(session(model).run(None, feed)[0] for model in (whole, eight.model)))
    assert eight.megabytes < plain.megabytes


def test_calibration_keeps_what_a_network_says() -> None:
    torch.manual_seed(0)
    network = SPACE.deploy(SPACE.network((0,) * len(SPACE.slots)).eval())
    x = torch.randn(32, *SPACE.inputs(1)[0].shape[1:])
    with torch.inference_mode():
        expected = network(x).numpy()
    eight = quantised(onnx_model(network, (x,)), [(x,)])
    (got,) = session(eight.SerializeToString()).run(None, {"input0": x.numpy()})
    apart = np.abs(got - expected).max() / np.abs(expected).max()
    assert 0 < apart < 0.2
    (blind,) = session(quantised(onnx_model(network, (x,))).SerializeToString()).run(None, {"input0": x.numpy()})
    assert apart < np.abs(blind - expected).max() / np.abs(expected).max()


def test_ranges_change_nothing_of_what_runs(tmp_path) -> None:
    space = spaces.get("grafts?model=torchvision:resnet18&resolution=32")
    (plain,) = pack_onnx(space, [(0,) * len(space.slots)], 1)
    assert isinstance(plain, Packed)
    shape, kinds = plain.inputs[0].shape, []
    for examples in (None, [(torch.randn(shape),) for _ in range(4)]):
        eight = quantised(onnx.load_model_from_string(plain.model), examples)
        kinds.append(optimised(eight.SerializeToString(), tmp_path / "o.onnx"))
    assert kinds[0] == kinds[1]
    assert "Relu" not in kinds[0]


def test_boxes_and_scores_keep_their_precision() -> None:
    torch.manual_seed(0)
    space = Detectors(spaces.get("mobilenet:tiny?resolution=128&channels=3"), 4)
    network = space.deploy(space.network((0,) * 9).eval())
    x = torch.randn(4, *space.inputs(1)[0].shape[1:])
    with torch.inference_mode():
        expected = network(x).numpy()
    eight = quantised(onnx_model(network, (x,)), [(x,)])
    (got,) = session(eight.SerializeToString()).run(None, {"input0": x.numpy()})
    assert len(np.unique(got[..., 4:])) > 1000
    assert np.abs(got - expected)[..., 4:].max() < 0.1
    assert np.abs(got - expected)[..., :4].max() < 0.1 * 128


def test_targets_of_eight_bits_are_others() -> None:
    ids = [targets.get(f"onnxruntime:cpu{of}").id for of in ("", "?precision=int8")]
    assert ids[0] != ids[1]
    assert ids[1].endswith("int8")
