"""Exports agree with their source, hold nothing of this machine and load where sartor is missing."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sartor.core import UserError
from sartor.export import export, onnx_model, onnx_models, stitch
from tests.toys import ToySpace

SPACE = ToySpace()
ARCH = (0, 1, 2, 3)


def run(model, *inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["output"], {f"input{k}": x.numpy() for k, x in enumerate(inputs)})[0]


@pytest.fixture(scope="module")
def pieces():
    """Deployed parts of one network, each with example inputs."""
    parts = SPACE.parts(ARCH)
    modules = [SPACE.deploy(part.make()) for part in parts]
    return modules, [tuple(torch.randn(1, *shape) for shape in part.inputs) for part in parts]


def test_stitched_parts_equal_the_whole_export(pieces):
    modules, inputs = pieces
    network, x = SPACE.assemble(modules), torch.randn(1, 3, 16, 16)
    joined, whole = stitch(onnx_models(modules, inputs)), onnx_model(network, (x,))
    onnx.checker.check_model(joined, full_check=True)
    np.testing.assert_array_equal(run(joined, x), run(whole, x))
    np.testing.assert_allclose(run(joined, x), network(x).detach(), rtol=1e-4, atol=1e-6)
    assert [n.op_type for n in joined.graph.node] == [n.op_type for n in whole.graph.node]


def test_the_same_part_may_stand_twice_in_a_chain():
    block = nn.Conv2d(4, 4, 3, padding=1).eval()
    x = torch.randn(2, 4, 8, 8)
    model = onnx_model(block, (x,))
    np.testing.assert_allclose(run(stitch([model, model, model]), x), block(block(block(x))).detach(), atol=1e-5)


@pytest.mark.parametrize("where", range(3))
def test_a_part_may_do_nothing(where):
    blocks = [nn.ReLU(), nn.Linear(4, 4)]
    blocks.insert(where, nn.Identity())
    x = torch.randn(2, 4)
    joined = stitch(onnx_models(blocks, [(x,)] * 3))
    onnx.checker.check_model(joined, full_check=True)
    np.testing.assert_allclose(run(joined, x), nn.Sequential(*blocks)(x).detach(), atol=1e-6)


def test_the_first_part_may_have_several_inputs():
    first = nn.Bilinear(3, 4, 5).eval()
    a, b = torch.randn(2, 3), torch.randn(2, 4)
    joined = stitch(onnx_models([first, nn.Tanh()], [(a, b), (torch.randn(2, 5),)]))
    np.testing.assert_allclose(run(joined, a, b), first(a, b).tanh().detach(), atol=1e-5)
    with pytest.raises(ValueError, match="2 inputs"):
        stitch([*onnx_models([nn.Tanh()], [(a,)]), *onnx_models([first], [(a, b)])])


def test_a_value_may_be_read_several_times():
    """A part with a residual connection and a constant used twice."""

    class Residual(nn.Module):
        def forward(self, x):
            return torch.where(x > 0.5, x * 0.5, x + 0.5) + x

    x = torch.randn(2, 6)
    joined = stitch(onnx_models([Residual(), Residual()], [(x,), (torch.randn(2, 6),)]))
    np.testing.assert_allclose(run(joined, x), Residual()(Residual()(x)), atol=1e-6)


def test_inner_graphs_are_renamed_with_what_they_capture():
    class Branch(nn.Module):
        def __init__(self, threshold):
            super().__init__()
            self.threshold = threshold
            self.scale = nn.Parameter(torch.full((6,), 1.5))

        def forward(self, x):
            return torch.cond(x.sum() > self.threshold, lambda y: y * self.scale, lambda y: y - 1, (x,))

    blocks = [Branch(0.0).eval(), Branch(100.0).eval()]
    joined = stitch(onnx_models(blocks, [(torch.randn(2, 6),), (torch.randn(2, 6),)]))
    assert [node.op_type for node in joined.graph.node].count("If") == 2
    for x in (torch.ones(2, 6), -torch.ones(2, 6), 50 * torch.ones(2, 6)):
        np.testing.assert_allclose(run(joined, x), nn.Sequential(*blocks)(x).detach(), rtol=1e-6)


def test_dynamic_batch_takes_any_batch(pieces):
    network = SPACE.assemble(pieces[0])
    model = onnx_model(network, (torch.randn(1, 3, 16, 16),), dynamic_batch=True)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 16, 16)
        np.testing.assert_allclose(run(model, x), network(x).detach(), rtol=1e-4, atol=1e-5)


def test_export_is_silent_and_holds_no_paths(pieces, capfd):
    modules, inputs = pieces
    text = stitch(onnx_models(modules, inputs)).SerializeToString()
    assert capfd.readouterr() == ("", "")
    assert os.fsencode(Path(torch.__file__).parent) not in text
    assert os.fsencode(Path(__file__).parent) not in text


def test_files_load_without_sartor(pieces, tmp_path):
    network, x = SPACE.assemble(pieces[0]), torch.randn(1, 3, 16, 16)
    done = export(network, (x,), tmp_path / "out", describe=SPACE.to_json(ARCH))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("network.json", "network.onnx", "network.pt2", "network.safetensors")
    ]
    for facts in done.values():
        assert facts["bytes"] == Path(facts["path"]).stat().st_size
        assert facts["max_abs_error"] <= 1e-5
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", network(x).detach().numpy())
    script = """
        import json, sys
        sys.modules["sartor"] = None
        import numpy as np, onnxruntime, torch
        from safetensors.torch import load_file
        x, y = np.load("x.npy"), np.load("y.npy")
        session = onnxruntime.InferenceSession("out/network.onnx")
        np.testing.assert_allclose(session.run(None, {"input0": x})[0], y, atol=1e-5)
        got = torch.export.load("out/network.pt2").module()(torch.from_numpy(x))
        np.testing.assert_allclose(got.detach().numpy(), y, atol=1e-5)
        w = load_file("out/network.safetensors")
        about = json.load(open("out/network.json"))
        assert about["architecture"] == [0, 1, 2, 3]
        assert about["inputs"] == [[1, 3, 16, 16]] and about["output"] == [1, 10]
        h = torch.relu(torch.nn.functional.conv2d(torch.from_numpy(x), w["0.0.weight"], w["0.0.bias"], padding=1))
        h = torch.relu(torch.nn.functional.conv2d(h, w["1.0.weight"], w["1.0.bias"], padding=1))
        assert torch.isfinite(h).all() and "5.2.weight" in w
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)


def test_a_disagreement_is_an_error_and_leaves_nothing(tmp_path):
    class TwoFaced(nn.Module):
        def forward(self, x):
            return x + (1.0 if torch.compiler.is_exporting() else 2.0)

    with pytest.raises(UserError, match="output of the onnx export differs by"):
        export(TwoFaced(), (torch.randn(1, 4),), tmp_path, ["onnx"])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_traced_is_one_line(tmp_path):
    class Untraceable(nn.Module):
        def forward(self, x):
            return x * time.time() if x.sum().item() > 0 else x

    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be exported as pt2") as caught:
        export(Untraceable(), (torch.randn(1, 4),), tmp_path, ["safetensors", "pt2"])
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["network.json"]


def test_unknown_format(tmp_path):
    with pytest.raises(UserError, match=r"unknown export format 'onx'.*did you mean 'onnx'"):
        export(nn.ReLU(), (torch.randn(1, 4),), tmp_path / "x", ["onx"])
    assert not (tmp_path / "x").exists()


def test_chosen_formats_only(tmp_path):
    assert list(export(nn.Linear(4, 2), (torch.randn(1, 4),), tmp_path, ["safetensors"])) == ["safetensors"]
    about = json.loads((tmp_path / "network.json").read_text())
    assert about["files"]["safetensors"]["path"] == "network.safetensors"
