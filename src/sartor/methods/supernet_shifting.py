"""Supernet Shifting: the supernet is fine-tuned on the networks that the search visits, while it searches.

B. Zhang et al., "Boosting Order-Preserving and Transferability for Neural Architecture Search: a Joint Architecture
Refined Search and Fine-tuning Approach", CVPR 2024; ALGORITHMS 2.3. A supernet that was trained on uniformly drawn
paths orders the whole space well and the best few badly. What evolution visits comes from good networks, and shifts it
to them. "The code" is the public code of Supernet Shifting; that of SPOS is named where it is meant.

    w of a trained supernet; another data set: with a new classifier      2.3, 2.4   `SupernetShifting.grader`
    for each generation, for each network a of it                         `SPOS.search`
        w <- w - eta grad L_train(N(a, w)), 640 images                    `Shifting.visit`
        err(a) on images of `valid`                                       `Shifting.visit`
    the best of the last generations                                      `SPOS._found`, `Shifting.final`

Where we differ, or had to decide:
  1. `schedule`. The code updates after each of 20 batches of a network (`per_batch`); the abstract says that the loss
     is accumulated, and the supernet updated every iteration (`per_iteration`: the mean gradient over a generation, 20
     updates in all). The code's batches are of 150; "in total 640 samples" (appendix) we read as 20 of 32 a network.
     `per` has another reading, 640 a generation, which with a rate of 1e-2 is the default: the cheapest of those tried
     that brought an order closer to the truth, which 1e-4 does not. A supernet that --from brings has seen nothing of
     new data, and is shifted on 640 a network. 640 in a whole search would be half an image a network.
  2. Scores of networks that stay are of weights that have moved since. `revisit` shifts on them and grades them in
     every generation, too. In any case the ten that may win are graded in the end by the weights as they are then;
     the code takes what was said at each one's visit.
  3. Batch norms are calibrated for each network before it is graded, as in SPOS; the code, and
     `SupernetShifting.paper()`, take the statistics that the shift leaves (`calibration=0`). Those are of the network
     that was shifted on last, so that there, too, what was said at the visit counts in the end. No network is visited
     as a child twice; the code may.
  4. `warmup` trains a new classifier alone before the search: a rate of 1e-4 is slow for random weights. Published:
     none.
  5. Evolution, and several objectives at once (appendix, 5), are those of `methods.spos`. Of several objectives, the
     last generation is graded again, and the front is of that.
  6. The shift is by SGD, also where a space is trained by AdamW. Where candidates share tensors (Once-for-All, grafts),
     a path moves what it shares with others, and the momentum of the rest of those tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from sartor.core import Architecture, Budget, F, Json, Path, Score, SearchSpace, Task, UserError
from sartor.core.memory import image_layout
from sartor.methods.settings.supernet_shifting import SupernetShiftingSettings
from sartor.methods.spos import SPOS, Grader
from sartor.quality.saved import FILE, of_run
from sartor.quality.supernet import Remembered
from sartor.quality.transfer import load, save, warm_up
from sartor.runs import Run, Stateful
from sartor.training.optimise import images_per_epoch, make_optimiser, steps_per_epoch

SHIFTED = "shifted.safetensors"
_BATCH = 32


class Shifting:
    """A supernet that moves with what is asked about it. trained_on: images that this search trained it on before."""

    by = "what the supernet says, as it was shifted"

    def __init__(
        self, supernet: Any, score: Score, task: Task, settings: SupernetShiftingSettings, run: Run, trained_on: int
    ) -> None:
        self.supernet, self.score, self.task, self.settings, self.run = supernet, score, task, settings, run
        self.metric, self.trained_on, self.shifted_on = score.metric, trained_on, 0
        self.said: dict[Architecture, float] = {}
        supernet.zero_grad(set_to_none=True)
        self.w = make_optimiser(supernet, "sgd", lr=settings.shift_lr, momentum=0.9, weight_decay=4e-5)
        self.state: Mapping[str, Stateful] = {"shifting": self}

    def visit(self, arch: Architecture, visit: int, members: int, last: bool) -> float:
        """Shift, then grade."""
        torch.manual_seed(self.run.torch_seed("dropout", visit))
        each, (count, size) = self.settings.schedule == "per_batch", self._drawn(members)
        seed, total = self.run.torch_seed("shift") % 2**32, torch.zeros((), device=self.task.device)
        self.supernet.train()
        # a permutation of the images for each visit, so that a search that resumes needs no position in one
        for batch in self.task.batches("train", size=size, seed=seed, epoch=visit, limit=count):
            loss = self.task.loss(partial(self.supernet, path=Path(arch)), batch)
            (loss if each else loss / (count * members)).backward()
            total += loss.detach()
            self.shifted_on += len(batch[1])
            if each:
                self._update()
        if not math.isfinite(float(total)):
            raise UserError(f"the loss of the shift is {float(total)}; lower shift_lr={self.settings.shift_lr:g}.")
        self.supernet.eval()
        self.said[arch] = float(self.score([arch])[0])
        if last and not each:  # all of the generation are graded by the same weights
            self._update()
        return self.said[arch]

    def _drawn(self, members: int) -> tuple[int, int]:
        """Batches of a visit, and their size: as many images as wanted, as far as there are so many."""
        wanted, source = self.settings.samples, self.settings.source
        per = self.settings.per or ("generation" if source is None else "architecture")
        images = wanted if per == "architecture" else max(2, round(wanted / members))
        count = -(-images // _BATCH)
        size = -(-images // count)
        return min(count, steps_per_epoch(self.task, "train", size)), size

    def _update(self) -> None:
        """A step of what has a gradient: weights off the path, and their momentum, stay."""
        self.w.step()
        self.w.zero_grad(set_to_none=True)

    def final(self, archs: Sequence[Architecture]) -> F:
        """By the weights as they are now; without calibration as at the last visit, whose statistics were its own."""
        save(self.supernet, self.run.path / SHIFTED, self.task)
        if not self.settings.calibration:
            return np.array([self.said[arch] for arch in archs])
        return Remembered(self.score, self.run.stage("final"))(archs)

    def images(self) -> dict[str, Json]:
        return {"supernet": self.trained_on, "shift": self.shifted_on}

    def state_dict(self) -> dict[str, Any]:
        gradients = {name: p.grad for name, p in self.supernet.named_parameters() if p.grad is not None}
        return {
            "supernet": self.supernet.state_dict(),
            "w": self.w.state_dict(),
            "gradients": gradients,
            "shifted_on": self.shifted_on,
            "said": [[list(arch), value] for arch, value in self.said.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.w.load_state_dict(state["w"])
        self.shifted_on, self.said = state["shifted_on"], {tuple(arch): value for arch, value in state["said"]}
        for name, parameter in self.supernet.named_parameters():
            parameter.grad = state["gradients"][name].to(parameter) if name in state["gradients"] else None


class SupernetShifting(SupernetShiftingSettings, SPOS):
    """SPOS whose supernet shifts. Hyper-parameters are the fields; see the module's docstring."""

    key: ClassVar[str] = "supernet-shifting"

    @property
    def again(self) -> bool:
        return self.revisit

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        super().check(space, budgets)
        if not space.has_supernet:
            raise UserError(f"space {space.name!r} has no supernet to shift; take one that has.")

    def grader(self, space: SearchSpace, given: Sequence[Score], run: Run, task: Task | None) -> Grader:
        """The supernet, trained here or taken from another run, and how it shifts."""
        if given:
            raise UserError("supernet-shifting trains the supernet that grades; leave scores of quality to spos.")
        if self.source is None:
            supernet, task = self.trained(space, task, run)
            images = self.epochs * images_per_epoch(task, "train", self.batch_size)
        else:
            supernet, task = self._transferred(space, task, run)
            images = self.warmup * min(self.batch_size, task.length("train"))
        score = self.graded_by(supernet, space, task)
        return Shifting(supernet, score, task, self, run, images)

    def _transferred(self, space: SearchSpace, task: Task | None, run: Run) -> tuple[Any, Task]:
        """The supernet of another run, on other data with a new classifier (2.4)."""
        task, begun = self.smoothed(task), run.path / FILE
        torch.manual_seed(run.torch_seed("classifier"))
        supernet: Any = space.supernet()
        if begun.exists():
            load(supernet, begun)
        else:
            names = load(supernet, of_run(str(self.source)), classes=self.replaced(task))
        supernet.to(task.device, memory_format=image_layout(task.device))
        if self.warmup and not begun.exists():
            warm_up(
                supernet,
                task,
                run.stage("warmup"),
                names=names,
                steps=self.warmup,
                batch_size=self.batch_size,
                lr=self.warmup_lr,
                draw=self.draw(space),
            )
        if not begun.exists():
            save(supernet, begun, None if names and not self.warmup else task)
        return supernet.eval(), task
