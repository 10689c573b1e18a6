"""ONNX Runtime on this machine's processor."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.core import Architecture, SearchSpace
from sartor.core.errors import UserError, unknown
from sartor.targets import energy, memory
from sartor.targets.conditions import cpu_model
from sartor.targets.local import LocalTarget, checked, medians
from sartor.targets.pack import Failed, Packed, cache_directory, pack_onnx
from sartor.targets.timing import Runnable

SESSION = {
    # Denormal numbers come from random weights, not from trained ones, and cost up to a hundred times more.
    "session.set_denormal_as_zero": "1",
    # Threads wait actively inside a run, as in deployment, but not after it: other sessions are alive here.
    "session.force_spinning_stop": "1",
}

PRECISIONS = ("fp32", "int8")
_WARM = 5  # inferences before those that are profiled


@dataclass(frozen=True)
class OnnxRuntime(LocalTarget):
    """`onnxruntime:cpu`, also of networks quantised to int8. Sessions run one operator at a time with all graph
    optimisations (ORT_ENABLE_ALL), as deployed. cache: directory for exported parts, so that the next process need not
    export them."""

    cache: Path | None = None

    @property
    def hardware(self) -> str:
        return cpu_model()

    @property
    def runtime(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__} cpu"

    @property
    def weighs(self) -> bool:
        return memory.available()

    @property
    def trains(self) -> bool:
        return False

    @property
    def folds(self) -> bool:
        return True

    @property
    def counters(self) -> Sequence[energy.Counter]:
        return energy.cpu_counters()

    def pack(self, space: SearchSpace, archs: Sequence[Architecture]) -> list[Packed | Failed]:
        return pack_onnx(space, archs, self.batch, self.cache, self.precision)

    def load(self, packed: Packed) -> Runnable:
        session, feed = self._session(packed)
        return lambda: session.run(["output"], feed)

    def by_kind(self, packed: Packed, runs: int) -> dict[str, float]:
        """By operator, after fusion: an activation that is part of its convolution is none of its own."""
        with tempfile.TemporaryDirectory() as scratch:
            session, feed = self._session(packed, profiled=f"{scratch}/profile")
            for _ in range(_WARM + runs):
                session.run(["output"], feed)
            events = json.loads(Path(session.end_profiling()).read_text())
        began = sorted(event["ts"] for event in events if event.get("name") == "model_run")
        spent: list[dict[str, float]] = [{} for _ in began]
        for event in events:
            if str(event.get("name")).endswith("_kernel_time"):
                kind, one = event["args"]["op_name"], spent[bisect_right(began, event["ts"]) - 1]
                one[kind] = one.get(kind, 0.0) + event["dur"] / 1e3
        return medians(spent[_WARM:])

    def _session(self, packed: Packed, profiled: str = "") -> tuple[Any, dict[str, Any]]:
        """The session and what it is fed with. profiled: prefix of a file that it writes where time goes to."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if profiled:
            options.enable_profiling, options.profile_file_prefix = True, profiled
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        for key, value in SESSION.items():
            options.add_session_config_entry(key, value)
        with _denormals():
            session = onnxruntime.InferenceSession(packed.model, options, providers=["CPUExecutionProvider"])
        feed = {f"input{k}": x.numpy() for k, x in enumerate(packed.inputs)}
        return session, feed

    @contextlib.contextmanager
    def settings(self) -> Iterator[dict[str, Any]]:
        with _denormals(flush=True):
            yield {"intra_op_threads": self.threads, "inter_op_threads": 1, "graph_optimisation": "all", **SESSION}

    def start(self) -> None:
        import torch
        from onnx import TensorProto, helper

        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input0", "output"))
        graph = helper.make_graph([helper.make_node("Relu", ["input0"], ["output"])], "start", [x], [y])
        opset = [helper.make_operatorsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        self.load(Packed(model.SerializeToString(), (torch.ones(1),)))()

    def peak_memory_mb(self, packed: Packed) -> float:
        return memory.peak_mb(self, packed)


@contextlib.contextmanager
def _denormals(flush: bool | None = None) -> Iterator[None]:
    """Flush denormal numbers to zero on this thread, or leave that as it is; restored afterwards.

    The first session of a process sets it for the calling thread, for good: whatever trains later in that process
    would compute other numbers than in one that measured nothing, and a resumed search would differ from a whole one.
    """
    import torch

    before = sys.float_info.min / 2 == 0.0
    if flush is not None:
        torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def onnxruntime(
    device: str = "cpu", threads: int = 1, batch: int = 1, precision: str = "fp32", cache: str | None = None
) -> OnnxRuntime:
    """`onnxruntime:cpu`. Raises UserError for what it cannot do."""
    try:
        import onnxruntime as _  # noqa: F401
    except ImportError:
        raise UserError("target 'onnxruntime' needs the package onnxruntime; pip install onnxruntime.") from None
    if device != "cpu":
        raise unknown("device of target 'onnxruntime':", device, ["cpu"])
    return OnnxRuntime(**checked(threads, batch, precision, PRECISIONS), cache=cache_directory(cache))
