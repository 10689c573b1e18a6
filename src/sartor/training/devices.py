"""The devices of a training: this process alone, or the first of several that share every batch.

This process is rank 0 and starts the others, which follow: they restore what it restores, take the same steps and write
nothing, so that whoever holds the lock of the run is the only one to write it. In each process Fabric does what it does
in one alone, and between backward and step the gradients are averaged, in one sum.

Fabric's launchers start rank 0 anew, away from the lock and the network, and its `ddp` is refused in notebooks. Torch's
DistributedDataParallel sums in another order after its first step, so that a resumed run would end with other weights,
unless it looks for unused parameters, which it complains about on stderr when there are none.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from sartor.core.errors import UserError
from sartor.core.memory import keep_freed_memory
from sartor.core.task import Batch
from sartor.data.vision import import_torchvision, whole
from sartor.training.recipe import Precision

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_HOST = "127.0.0.1"
_FOREVER = timedelta(days=365)


class Place:
    """A device that trains alone."""

    rank = 0

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """This device's part of a batch, and the weight of its loss in the mean over the devices."""
        return batch, 1.0

    def average(self, network: nn.Module) -> None:
        """Make the gradients the means over the devices."""

    def mean(self, loss: Tensor) -> Tensor:
        """The mean over the devices."""
        return loss

    def meet(self, name: str) -> None:
        """Wait for the first device to come here, however long that takes."""


class _Shared(Place):
    """One of several devices."""

    def __init__(self, fabric: Fabric, rank: int, devices: int, store: Store) -> None:
        super().__init__(fabric)
        self.rank, self.devices, self._store = rank, devices, store

    def share(self, batch: Batch) -> tuple[Batch, float]:
        inputs, targets = batch
        count = len(targets)
        part = slice(count * self.rank // self.devices, count * (self.rank + 1) // self.devices)
        mine: Batch = self.fabric.to_device((tuple(x[part] for x in inputs), targets[part]))
        return mine, len(mine[1]) * self.devices / count

    def average(self, network: nn.Module) -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        total = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(total)
        means = torch.split(total / self.devices, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, loss: Tensor) -> Tensor:
        total = loss.detach().double()
        distributed.all_reduce(total)
        return total / self.devices

    def meet(self, name: str) -> None:
        if self.rank == 0:
            self._store.set(name, "")
        else:  # not by a collective: one that waits longer than minutes is an error
            self._store.wait([name], _FOREVER)


def check(devices: int, device: torch.device, batch: int) -> None:
    """Raise UserError when there are not that many devices from `device` on, or not that many examples in a batch."""
    if whole("devices", devices) == 1:
        return
    if device.type != "cpu":
        there = torch.cuda.device_count() - (device.index or 0) if device.type == "cuda" else 1
        if devices > there:
            raise UserError(f"devices={devices}, from {device} on there are {there}; give fewer, or --device cpu.")
    if devices > batch:
        raise UserError(f"devices={devices} cannot share a batch of {batch}; give at most devices={batch}.")


@contextmanager
def together(
    devices: int, device: torch.device, precision: Precision, follow: Callable[[Place], object]
) -> Iterator[Place]:
    """The place of this process; `follow` is called with every other place, in a process of its own.

    The processes end with the block. Raises UserError when `follow` cannot be sent to them, RuntimeError when one died.
    """
    if devices == 1:
        yield Place(_fabric(device, precision))
        return
    threads = max(1, torch.get_num_threads() // devices)
    plan = _Plan(devices, device, precision, threads, "torchvision" in sys.modules)
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    with ExitStack() as stack:
        with tempfile.NamedTemporaryFile() as sent:  # a pipe would block for ever where a process dies before it reads
            try:
                pickle.dump(follow, sent)  # by value: containers have little shared memory, and each needs own weights
                sent.flush()
            except Exception as error:
                raise _unsendable(error) from None
            others = start_processes(_follow, (plan, store.port, sent.name), devices - 1, join=False)
            stack.callback(_end, others)
            _await(others, store)
        with plan.place(0, store) as place, _guarded(others):
            yield place


@dataclass(frozen=True)
class _Plan:
    """What every process is told. device: of rank 0; threads: for each process; torchvision: is in use."""

    devices: int
    device: torch.device
    precision: Precision
    threads: int
    torchvision: bool

    @contextmanager
    def place(self, rank: int, store: Store) -> Iterator[Place]:
        """The place of a rank, once all are there."""
        before, device, backend = torch.get_num_threads(), self.device, "gloo"
        if device.type == "cuda":
            device, backend = torch.device("cuda", (device.index or 0) + rank), "nccl"
        torch.set_num_threads(self.threads)
        try:
            fabric = _fabric(device, self.precision)
            distributed.init_process_group(backend, store=store, rank=rank, world_size=self.devices)
            try:
                yield _Shared(fabric, rank, self.devices, store)
            finally:
                distributed.destroy_process_group()
        finally:
            torch.set_num_threads(before)


def _follow(index: int, plan: _Plan, port: int, sent: str) -> None:
    store = TCPStore(_HOST, port, is_master=False, wait_for_workers=False)
    try:
        if plan.torchvision:
            import_torchvision()  # what is sent may be of its modules
        with open(sent, "rb") as file:
            work = pickle.load(file)
    except Exception as error:
        store.set(f"came {index}", str(_unsendable(error)))
        raise
    store.set(f"came {index}", "")
    with plan.place(index + 1, store) as place:
        work(place)


def _await(others: ProcessContext, store: Store) -> None:
    for index in range(len(others.processes)):
        try:
            while not store.check([f"came {index}"]):
                others.join(timeout=0.05)
        except ProcessException as error:
            raise UserError(
                f"the process of device {error.error_index + 2} did not start ({error}); see above, and note that a "
                "script which trains on several devices needs `if __name__ == '__main__':` around its work."
            ) from None
        problem = store.get(f"came {index}").decode()
        if problem:
            raise UserError(problem)


@contextmanager
def _guarded(others: ProcessContext) -> Iterator[None]:
    """End the other processes when this one fails, and say so if it failed because one of them died."""
    try:
        yield
    except BaseException as error:
        died = _died(others) if isinstance(error, RuntimeError) else None
        _end(others)  # before the group is left, which waits for what they have to say
        if died:
            raise died from None
        raise


def _died(others: ProcessContext) -> RuntimeError | None:
    try:
        others.join(timeout=5)
    except ProcessException as cause:
        return RuntimeError(f"the process of device {cause.error_index + 2} died: {cause}; the same command resumes.")
    return None


def _end(others: ProcessContext) -> None:
    for process in others.processes:
        process.kill()
        process.join()


def _fabric(device: torch.device, precision: Precision) -> Fabric:
    keep_freed_memory()
    import_torchvision()  # Fabric's own imports need one that loads
    from lightning.fabric import Fabric

    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # or a resumed run would end with slightly other weights
    return Fabric(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision=precision,
    )


def _unsendable(error: Exception) -> UserError:
    return UserError(
        f"this task or network cannot be sent to the process of another device ({error}); define its classes and "
        "functions at the top of a module, or give devices=1."
    )
