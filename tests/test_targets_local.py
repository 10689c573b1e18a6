"""Real runtimes on this machine: the contract, threads, failures, memory, references to targets."""

import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from torch import nn

from sartor.core import UserError
from sartor.spaces.networks import Networks
from sartor.spaces.parts import Parts
from sartor.targets import available, get
from sartor.targets import pack as packing
from sartor.targets.pack import Failed, Packed, pack_onnx
from sartor.targets.store import Store
from sartor.targets.timing import Rounds
from sartor.workflow.measuring import measure_parts
from tests.contracts.targets import check_target
from tests.toys import ToySpace

QUICK = Rounds(chunk=3, rounds=3, visit_ms=0.1, visit_runs=1, warmup_ms=0.1, patience_s=0)
TARGETS = ["onnxruntime:cpu", "onnxruntime:cpu?precision=int8", "torch:cpu", "torch:cpu?precision=bf16&batch=2"]


def quick(reference):
    return replace(get(reference), protocol=QUICK)


class Breaks(nn.Module):
    def forward(self, x):
        raise RuntimeError("this block\ncannot run")


class BrokenSpace(ToySpace):
    """Candidate 1 cannot be built, candidate 2 cannot be run."""

    def __init__(self, chain=True):
        super().__init__(2, channels=6, chain=chain)

    def make(self, slot, candidate):
        if candidate == 1:
            raise ValueError("no such block")
        return Breaks() if candidate == 2 else super().make(slot, candidate)


@pytest.mark.parametrize("reference", TARGETS)
def test_contract(reference):
    check_target(quick(reference), ToySpace(2))


def test_contract_with_whole_networks_and_no_slots():
    check_target(quick("onnxruntime:cpu"), ToySpace(1, chain=False))
    check_target(quick("torch:cpu"), ToySpace(0))


@pytest.mark.parametrize(
    ("reference", "chain"), [("onnxruntime:cpu", True), ("onnxruntime:cpu", False), ("torch:cpu", True)]
)
def test_a_failure_is_a_failure_and_the_rest_goes_on(reference, chain):
    archs = [(0, 3), (1, 0), (2, 0), (3, 3)]
    found = list(quick(reference).measure(BrokenSpace(chain), archs, ["latency_ms"]))
    assert [m.arch for m in found] == archs
    assert [m.error is None for m in found] == [True, False, False, True]
    assert found[1].error == "ValueError: no such block"
    assert "cannot" in found[2].error or "this block" in found[2].error
    assert [m.conditions.get("stage") for m in found] == [
        None,
        "build",
        "run" if "torch" in reference else "build",
        None,
    ]
    assert all(m.samples == () and m.value != m.value for m in found[1:3])


def test_the_reference_is_the_same_for_all_chunks(monkeypatch):
    target, loaded = quick("torch:cpu"), []
    original = type(target).load
    monkeypatch.setattr(type(target), "load", lambda self, packed: loaded.append(packed) or original(self, packed))
    archs = [(k, j) for k in range(4) for j in range(2)]
    assert len(list(target.measure(ToySpace(2), archs, ["latency_ms"]))) == 8
    assert len(loaded) == 8 + 3 + 1, "three chunks with the reference in each, which was tried once before"
    assert len({id(packed) for packed in loaded}) == 8 + 1


@pytest.mark.parametrize("reference", TARGETS[:2])
@pytest.mark.parametrize(("number", "megabytes", "sizes"), [(5, 1e3, [5, 3]), (5, 1e-9, [1] * 8)])
def test_a_chunk_holds_as_many_networks_as_number_and_weights_allow(reference, number, megabytes, sizes):
    target = quick(reference)
    target = replace(target, protocol=replace(target.protocol, chunk=number, chunk_mb=megabytes))
    archs = [(k, j) for k in range(4) for j in range(2)]
    found = list(target.measure(ToySpace(2), archs, ["latency_ms"]))
    assert [one.arch for one in found] == archs
    beside = [one.reference for one in found]
    assert [len(list(same)) for _, same in groupby(beside)] == sizes


def test_spaces_made_of_others_are_measured_beside_the_same_network():
    base = ToySpace(2)
    for space in (base.restrict({0: [1, 3]}), Networks([(base, (0, 1)), (ToySpace(1), (2,))]), Parts(base)):
        (one,) = quick("onnxruntime:cpu").measure(space, [(0,) * len(space.slots)], ["latency_ms"])
        reference, arch = next(base.references())
        assert one.error is None
        assert one.conditions["reference_network"] == reference.key(arch)


def test_threads_are_set_recorded_and_restored(monkeypatch):
    monkeypatch.setattr("sartor.targets.conditions.cores", lambda: 8)
    before, seen = torch.get_num_threads(), []

    class Witness(ToySpace):
        def make(self, slot, candidate):
            block = super().make(slot, candidate)
            block.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
            return block

    found = list(quick("torch:cpu?threads=3").measure(Witness(1), [(0,)], ["latency_ms"]))
    assert set(seen[2:]) == {3}
    assert torch.get_num_threads() == before
    assert found[0].conditions["torch_threads"] == 3
    target = quick("onnxruntime:cpu?threads=2")
    assert "threads 2" in target.id
    assert next(target.measure(ToySpace(1), [(0,)], ["latency_ms"])).conditions["intra_op_threads"] == 2


def test_session_has_the_threads_asked_for(monkeypatch):
    import onnxruntime

    made, original = [], onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: made.append(a[1]) or original(*a, **k))
    list(quick("onnxruntime:cpu?threads=2").measure(ToySpace(1), [(0,)], ["latency_ms"]))
    assert {(o.intra_op_num_threads, o.inter_op_num_threads) for o in made} == {(2, 1)}


@pytest.mark.parametrize(("reference", "kind"), [("onnxruntime:cpu", "Conv"), ("torch:cpu", "Conv2d")])
def test_a_profile_says_where_time_goes(reference, kind):
    spent = quick(reference).profile(ToySpace(2), (0, 0), runs=3)
    assert kind in spent
    assert list(spent.values()) == sorted(spent.values(), reverse=True)
    assert all(0 <= ms < 1e3 for ms in spent.values())
    with pytest.raises(UserError, match="cannot be profiled"):
        quick(reference).profile(BrokenSpace(), (2, 0), runs=3)


def test_drift_is_warned_about(monkeypatch, caplog):
    clock = [0]

    def slower(run, min_ms, min_runs):
        clock[0] += 1
        return 1.0 + 0.1 * clock[0]

    monkeypatch.setattr("sartor.targets.local.visit", slower)
    found = list(quick("torch:cpu").measure(ToySpace(1), [(0,), (1,)], ["latency_ms"]))
    assert found[0].conditions["drift"] > 0.1
    assert "the machine is not steady" in caplog.text


@pytest.mark.parametrize("reference", ["onnxruntime:cpu", "torch:cpu"])
def test_peak_memory_grows_with_the_network(reference):
    small, large = (ToySpace(1, channels=c, size=64) for c in (8, 512))
    target = quick(reference)
    found = [next(target.measure(space, [(0,)], ["peak_memory_mb"])) for space in (small, large)]
    assert [m.error for m in found] == [None, None]
    weights = 512 * 512 * 9 * 4 / 1e6
    assert found[1].value - found[0].value > 0.9 * weights


def test_a_network_that_dies_in_its_own_process_is_a_failure():
    target = quick("torch:cpu")
    found = list(target.measure(BrokenSpace(), [(2, 0), (0, 0)], ["peak_memory_mb"]))
    assert found[0].error == "RuntimeError: exit code 1: cannot run"
    assert found[1].error is None


def test_energy_where_there_is_a_counter(monkeypatch, tmp_path):
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "5", "max_energy_range_uj": "100"}.items():
        (zone / name).write_text(text)
    from sartor.targets import energy

    fake = energy.cpu_counters(tmp_path)
    monkeypatch.setattr(energy, "cpu_counters", lambda: fake)
    monkeypatch.setattr(energy, "WINDOW_S", 0.01)
    target = quick("torch:cpu")
    assert "energy_mj" in target.metrics
    (found,) = target.measure(ToySpace(1), [(0,)], ["energy_mj"])
    assert found.samples == (0.0, 0.0, 0.0)
    assert found.conditions["counter"] == "powercap"
    assert found.conditions["window_s"] == 0.01


# ---------------------------------------------------------------------- packing


def test_each_part_is_exported_once(monkeypatch, tmp_path):
    import sartor.export

    exported, original = [], sartor.export.onnx_models
    monkeypatch.setattr(sartor.export, "onnx_models", lambda m, x: exported.append(len(m)) or original(m, x))
    monkeypatch.setattr(packing, "_CACHE", packing._Cache())
    space = ToySpace(2, channels=5)
    archs = list(space.enumerate())
    packed = pack_onnx(space, archs, 1, tmp_path)
    assert all(isinstance(one, Packed) for one in packed)
    assert sum(exported) == 1 + 4 + 4 + 1
    again = pack_onnx(space, archs[:3], 1, tmp_path)
    monkeypatch.setattr(packing, "_CACHE", packing._Cache())  # as in another process
    later = pack_onnx(space, archs, 1, tmp_path)
    assert sum(exported) == 10
    assert [one.model for one in again] == [one.model for one in packed[:3]]
    assert [one.model for one in later] == [one.model for one in packed]
    pack_onnx(space, archs[:1], 2, tmp_path)
    assert sum(exported) == 14, "another batch is another export"


def test_memory_for_parts_is_bounded(monkeypatch):
    monkeypatch.setattr(packing, "CACHE_BYTES", 5000)
    cache = packing._Cache()
    monkeypatch.setattr(packing, "_CACHE", cache)
    space = ToySpace(2, channels=5)
    packed = pack_onnx(space, list(space.enumerate()), 1)
    assert all(isinstance(one, Packed) for one in packed)
    assert sum(size for _, size in cache._kept.values()) == cache._bytes <= 5000


def test_weights_are_the_same_in_every_process_and_the_caller_stream_is_left_alone():
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    first = packing.pack_module(ToySpace(1), (0,), 1)
    assert torch.rand(1) == wanted
    second = packing.pack_module(ToySpace(1), (0,), 1)
    assert isinstance(first, Packed)
    assert isinstance(second, Packed)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters()))
    assert all(parameter.any() for parameter in first.model.parameters()), "no bias is zero: exporters drop those"


def test_packed_networks_can_be_sent_to_another_process():
    (one,) = pack_onnx(ToySpace(1), [(0,)], 1)
    target = get("onnxruntime:cpu")
    other, packed = pickle.loads(pickle.dumps((target, one)))
    assert other.load(packed)() is not None
    assert Failed.at("run", ValueError()).error == "ValueError"


def test_running_out_of_memory_is_of_the_moment(monkeypatch):
    class Huge(ToySpace):
        room = False

        def make(self, slot, candidate):
            if not self.room:
                raise MemoryError
            return super().make(slot, candidate)

    space = Huge(1, channels=3)
    (first,) = pack_onnx(space, [(0,)], 1)
    assert first == Failed("run", "MemoryError")
    space.room = True
    assert isinstance(pack_onnx(space, [(0,)], 1)[0], Packed)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("onxruntime:cpu", "unknown target 'onxruntime'; .*did you mean 'onnxruntime'"),
        ("onnxruntime", "does not say the device.*onnxruntime:cpu"),
        ("torch?device=cpu", "torch:cpu or torch:cuda"),
        ("onnxruntime:gpu", "unknown device of target 'onnxruntime': 'gpu'"),
        ("torch:cdua", "did you mean 'cuda'"),
        ("torch:cpu?thread=1", "unknown option.*did you mean 'threads'"),
        ("torch:cpu?threads=0", "threads=0 is not possible"),
        ("torch:cpu?threads=true", "threads=True is not possible"),
        ("torch:cpu?threads=100000", "threads=100000 is more than the"),
        ("onnxruntime:cpu?batch=-1", "batch=-1 is not possible"),
        ("onnxruntime:cpu?batch=two", "batch=two is not possible"),
        ("onnxruntime:cpu?precision=int3", "unknown precision 'int3'; there is fp32"),
        ("torch:cpu?precision=fp16", "unknown precision 'fp16'; there is bf16, fp32"),
        ("torch:cpu?threads", "cannot read the options"),
    ],
)
def test_bad_references_are_one_line(reference, message):
    with pytest.raises(UserError, match=message) as caught:
        get(reference)
    assert "\n" not in str(caught.value)


def test_cache_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give a directory"):
        get(f"onnxruntime:cpu?cache={tmp_path}/file")


def test_absent_devices_and_runtimes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"finds no CUDA device; use torch:cpu"):
        get("torch:cuda")
    assert [sorted(entry) for entry in available() if entry["target"] == "torch:cuda"] == [["error", "target"]]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="needs the package onnxruntime"):
        get("onnxruntime:cpu")


def test_available_lists_what_can_be_used():
    found = {entry["target"]: entry for entry in available()}
    assert found["onnxruntime:cpu"]["id"] == get("onnxruntime:cpu").id
    assert "latency_ms" in found["torch:cpu"]["metrics"]


def test_names_cost_no_import():
    script = (
        "import sys, sartor.targets; print(sorted({'torch', 'onnx', 'onnxruntime', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


class Drops(ToySpace):
    def make(self, slot, candidate):
        return nn.Sequential(super().make(slot, candidate), nn.Dropout(0.5))


def test_a_step_of_training_costs_more_than_inference_and_leaves_weights_and_the_stream_of_random_numbers_alone():
    target, space = quick("torch:cpu?batch=4"), Drops(2)
    network, inputs = packing.pack_step(space, (0, 0), 4).model, space.inputs(4)
    weights = [p.clone() for p in network.parameters()]
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    ms = {one.metric: one.value for one in target.measure(space, [(0, 0)], ["training_step_ms", "latency_ms"])}
    assert torch.equal(torch.rand(1), expected)
    target._step(network, inputs)()
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters()))
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    assert ms["training_step_ms"] > ms["latency_ms"]


def test_what_cannot_be_trained_is_a_failure_and_runtimes_that_do_not_train_say_so(tmp_path):
    with Store(tmp_path / "m.db") as store, pytest.raises(UserError, match="lookup"):
        measure_parts(ToySpace(1), quick("torch:cpu?batch=2"), "training_step_ms", store)
    found = list(quick("torch:cpu?batch=2").measure(BrokenSpace(), [(1, 0), (2, 0), (0, 0)], ["training_step_ms"]))
    assert [bool(one.error) for one in found] == [True, True, False]
    with pytest.raises(UserError, match="batch=64"):
        quick("torch:cpu").measure(ToySpace(1), [(0,)], ["training_step_ms"])
    with pytest.raises(UserError, match="training_step_ms"):
        quick("onnxruntime:cpu").measure(ToySpace(1), [(0,)], ["training_step_ms"])
