"""A loss that also wants the outputs of a teacher: G. Hinton et al., "Distilling the Knowledge in a Neural Network"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from sartor.core import Batch, Task
from sartor.training.tasks import smoothed


class Distilled:
    """A classification task, its loss (1 - share) x its own + share x T^2 x KL(teacher || network), logits over T.

    teacher: gives logits (batch, classes) of the task's inputs; is put into evaluation on the task's device; share, 0
    to 1, and temperature T, above 0. All else is as in the task.
    """

    def __init__(self, task: Task, teacher: nn.Module, *, share: float = 0.5, temperature: float = 4.0) -> None:
        self.task, self.share, self.temperature = task, share, temperature
        self.teacher = teacher.to(task.device).eval()

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.task, name)

    def smoothed(self, label_smoothing: float) -> Distilled:
        """The same with another label smoothing of the task's own loss."""
        task = smoothed(self.task, label_smoothing)
        return Distilled(task, self.teacher, share=self.share, temperature=self.temperature)

    def loss(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Mean over the batch."""
        inputs, _ = batch
        outputs = net(*inputs)
        with torch.no_grad():
            wanted = self.teacher(*inputs)
        said, told = (log_softmax(logits.float() / self.temperature, 1) for logits in (outputs, wanted))
        soft = self.temperature**2 * kl_div(said, told, reduction="batchmean", log_target=True)
        return (1 - self.share) * self.task.loss(lambda *_: outputs, batch) + self.share * soft
