"""Supernets as files, and how one begins on other data with the weights of another."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from sartor.core import Path, Task, UserError
from sartor.quality.supernet import Draw
from sartor.runs import Run, write_atomic
from sartor.training.optimise import make_optimiser

_DATA = "data"
_OTHERWISE = ("examples", "split_seed", "label_smoothing")


def save(supernet: Any, file: FilePath, task: Task | None) -> None:
    """All weights and statistics, on the CPU; shared ones as often as they are named, of a sub-space those of all.

    task: whose data its classifier was trained on, which the file says; None: on none yet.
    """
    from safetensors.torch import save as packed

    state = {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in _whole(supernet).state_dict().items()}
    write_atomic(file, packed(state, None if task is None else {_DATA: _told(task)}))


def of_data(file: FilePath, task: Task) -> bool:
    """Whether the classifier of a saved supernet was trained on these data."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as saved:
            return (saved.metadata() or {}).get(_DATA) == _told(task)
    except (SafetensorError, OSError):
        return False  # loading it says what is wrong


def _told(task: Task) -> str:
    """What the classifier is of: the data, however they are split and whatever the loss is."""
    of = {key: value for key, value in task.describe().items() if key not in _OTHERWISE}
    return json.dumps(of, sort_keys=True)


def load(supernet: Any, file: FilePath, *, classes: int | None = None) -> list[str]:
    """The weights of a saved supernet of the same slots.

    classes: how many a new classifier tells apart, which keeps the weights it has here; the names of its tensors are
    returned. Raises UserError for a file that is damaged or of another supernet.
    """
    from safetensors.torch import load_file

    whole = _whole(supernet)
    try:
        old = load_file(file)
    except Exception as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0][:100]}); search again.") from None
    new = whole.state_dict()
    left = [] if classes is None else classifier(whole, classes)
    same = {name for name in new.keys() & old.keys() if new[name].shape == old[name].shape}
    apart = [name for name in (*new, *old) if name not in same and name not in left]
    if apart:
        shapes = [list(of[apart[0]].shape) if apart[0] in of else "missing" for of in (old, new)]
        raise UserError(
            f"the supernet {file} is of another space: {apart[0]} is {shapes[0]} there and {shapes[1]} here; give the "
            "same space, of which only resolution and classes may differ."
        )
    whole.load_state_dict({name: new[name] if name in left else value for name, value in old.items()})
    return left


def classifier(supernet: nn.Module, classes: int) -> list[str]:
    """Names of the tensors of the last linear layer. Raises UserError where that does not tell the classes apart."""
    names = [name for name, module in supernet.named_modules() if isinstance(module, nn.Linear)]
    last: Any = supernet.get_submodule(names[-1]) if names else None
    if last is None or last.out_features != classes:
        raise UserError("this supernet does not end with a linear layer over the classes, which could be replaced.")
    return [f"{names[-1]}.{name}" for name in last.state_dict()]


def warm_up(
    supernet: Any, task: Task, run: Run, *, names: list[str], steps: int, batch_size: int, lr: float, draw: Draw
) -> Any:
    """Train these tensors alone for so many steps of one drawn path each; SGD with momentum, constant lr."""
    whole = _whole(supernet)
    alone = nn.ParameterDict({k.replace(".", "-"): v for k, v in whole.named_parameters() if k in names})
    w = make_optimiser(alone, "sgd", lr=lr)
    for step in run.steps(steps, supernet=whole, w=w):
        torch.manual_seed(run.torch_seed("dropout", step))
        (arch,) = draw(run.rng("paths", step), 1)
        supernet.train()
        (batch,) = task.batches("train", size=batch_size, seed=run.seed, epoch=step, limit=1)
        loss = task.loss(partial(supernet, path=Path(arch)), batch)
        for value, grad in zip(alone.values(), torch.autograd.grad(loss, list(alone.values()))):
            value.grad = grad
        w.step()
        if step + 1 == steps:
            run.log("warmed up", steps=steps, loss=float(loss.detach()))
    supernet.zero_grad(set_to_none=True)
    return supernet.eval()


def _whole(supernet: Any) -> nn.Module:
    """That of the space itself, where this one is of a part of it."""
    found: nn.Module = getattr(supernet, "base", supernet)
    return found
