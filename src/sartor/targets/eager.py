"""PyTorch itself, uncompiled, on a processor or an NVIDIA GPU: inference, and steps of training."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sartor.core import Architecture, SearchSpace
from sartor.core.errors import UserError, unknown
from sartor.targets import energy, memory
from sartor.targets.conditions import cpu_model
from sartor.targets.local import LocalTarget, checked, medians
from sartor.targets.pack import Failed, Packed, pack_module
from sartor.targets.timing import Runnable

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}


@dataclass(frozen=True)
class TorchEager(LocalTarget):
    """`torch:cpu` and `torch:cuda` (the current device). A run ends when the device has finished it."""

    device: str = "cpu"

    @property
    def hardware(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else cpu_model()

    @property
    def runtime(self) -> str:
        return f"torch {torch.__version__} {self.device}"

    @property
    def weighs(self) -> bool:
        return self.device == "cuda" or memory.available()

    @property
    def trains(self) -> bool:
        return self.precision == "fp32" and self.batch > 1

    @property
    def folds(self) -> bool:
        return False

    @property
    def counters(self) -> Sequence[energy.Counter]:
        return energy.gpu_counters() if self.device == "cuda" else energy.cpu_counters()

    def pack(self, space: SearchSpace, archs: Sequence[Architecture]) -> list[Packed | Failed]:
        return [pack_module(space, arch, self.batch) for arch in archs]

    def load(self, packed: Packed) -> Runnable:
        network, inputs = self._placed(packed)
        if network.training:
            return self._step(network, inputs)

        def run() -> None:
            with torch.inference_mode():
                network(*inputs)
            self._wait()

        return run

    def _step(self, network: nn.Module, inputs: list[torch.Tensor]) -> Runnable:
        """Forward, cross-entropy, backward, SGD with momentum; at a rate of 0, which costs the same and leaves the
        weights as they are, however often it is run."""
        optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)

        def run() -> None:
            output = network(*inputs).flatten(0, -2)
            labels = torch.zeros(len(output), dtype=torch.int64, device=output.device)
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(output, labels).backward()
            optimiser.step()
            self._wait()

        return run

    def by_kind(self, packed: Packed, runs: int) -> dict[str, float]:
        """By class of the modules that have none inside; what stands between them is in none."""
        network, inputs = self._placed(packed)
        spent: list[dict[str, float]] = []
        began: list[float] = []

        def before(*_: Any) -> None:
            self._wait()
            began.append(time.perf_counter())

        def after(module: nn.Module, *_: Any) -> None:
            self._wait()
            kind = type(module).__name__
            spent[-1][kind] = spent[-1].get(kind, 0.0) + 1e3 * (time.perf_counter() - began.pop())

        with torch.inference_mode():
            network(*inputs)
            for module in network.modules():
                if next(module.children(), None) is None:
                    module.register_forward_pre_hook(before)
                    module.register_forward_hook(after)
            for _ in range(runs):
                spent.append({})
                network(*inputs)
        return medians(spent)

    def _placed(self, packed: Packed) -> tuple[nn.Module, list[torch.Tensor]]:
        assert isinstance(packed.model, nn.Module)
        dtype = DTYPES[self.precision]
        network = copy.deepcopy(packed.model).to(self.device, dtype)  # `to` would move the packed one
        return network, [x.to(self.device, dtype if x.is_floating_point() else x.dtype) for x in packed.inputs]

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def settings(self) -> Iterator[dict[str, Any]]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)  # denormal numbers come from random weights, not from trained ones
        drawn_from = [torch.cuda.current_device()] if self.device == "cuda" else []
        try:
            with torch.random.fork_rng(drawn_from):  # dropout of a step of training
                yield {"torch_threads": torch.get_num_threads(), "flush_denormal": True}
        finally:
            torch.set_num_threads(before)
            torch.set_flush_denormal(False)

    def start(self) -> None:
        convolutions = [nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)]
        network = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16))
        self.load(Packed(network, (torch.zeros(1, 16, 16, 16),)))()

    def peak_memory_mb(self, packed: Packed) -> float:
        if self.device == "cpu":
            return memory.peak_mb(self, packed)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.load(packed)()
        return (torch.cuda.max_memory_allocated() - before) / 1e6


def torch_eager(device: str = "cpu", threads: int = 1, batch: int = 1, precision: str = "fp32") -> TorchEager:
    """`torch:cpu` or `torch:cuda`. Raises UserError for what it cannot do."""
    if device not in PRECISIONS:
        raise unknown("device of target 'torch':", device, PRECISIONS)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("target 'torch:cuda' finds no CUDA device; use torch:cpu, or a machine with an NVIDIA GPU.")
    return TorchEager(**checked(threads, batch, precision, PRECISIONS[device]), device=device)
