"""LightNAS: one differentiable search that ends at a stated latency or energy.

X. Luo, D. Liu, H. Kong, S. Huai, H. Chen, W. Liu, "LightNAS: On Lightweight and Scalable Neural Architecture Search
for Embedded Platforms", IEEE TCAD 2022; thesis chapter 4, sections 4.3.3 and 4.3.4.

    minimise over alpha   CE_valid(w, alpha) + lambda (LAT(P) / T - 1)                         Eq. 4.10
    w, alpha by descent, lambda by ascent: lambda += eta (LAT / T - 1)                        Eq. 4.11
    path: argmax of softmax((log P + G) / tau), straight-through                         Eq. 4.7 - 4.9

Where we follow the public code and not the text: Gumbel noise is added to log P (the printed P + G samples from the
wrong distribution); the temperature falls as 5 exp(-8 t) over the unfrozen share t of the search; the weights' gradient
is clipped. Six more things of the code are options, off in `LightNAS.paper()` as in the text: `sign_clip`,
`final_damping`, `halving`, `fair_warmup`, `label_smoothing`, and `identity`, which is on by default.

All of that runs one path a step; `paths=all` is the other search of Table 4.3: every candidate, weighed by P (DARTS).

Where we differ in every mode: weights off the path are left alone (the code's optimiser goes on decaying and moving
them by momentum); the head's batch norm is in the supernet as well; the validation split is a fifth of the training
data in a fixed order, not augmented, of which whole batches are used, and from which batch norms take their statistics,
too, while logits are updated; weights start as torch starts them; the learning rate falls per step, not per epoch; the
update of the logits computes no gradients of the weights, which the code computes and discards; several budgets are a
vector of multipliers, and of several upper limits a slack one does not push.

Where our defaults differ, all of it undone by `LightNAS.paper()`:
  1. `controller`. The published multiplier integrates the violation of the argmax, one very noisy number a batch, and
     swings on short searches. Ours is solved for: in every update lambda is the one with which the gradient of the loss
     leaves the expected cost as it is (`balance`), and after Adam's step P is moved to the nearest distribution whose
     expected cost is the budget (`hold`). To make the argmax cost what the expectation does, P is sharpened as the
     search ends and the spread of the cost under P joins the loss, with a weight that grows from 0 towards `decision`.
  2. `land`. An integer program picks, among the architectures inside the budgets, the most probable one.
  3. `identity`. Every layer also passes on phi S(X), its input brought to the shape of its output, with phi falling to
     0 as logits train (the mapping of SurgeNAS, Eq. 3.10, which the code of LightNAS has and its text does not).
     Without it a supernet of a few thousand steps guesses, and the straight-through gradient says nothing: what goes
     into a batch norm has no scale, so gates multiply in vain (`benchmarks/gradient.py`).
  4. `arch_lr`. Adam moves a logit by about its learning rate an update: below 3,000 updates we raise it, so that logits
     can travel by about 3, which sharpening makes 24. At 10 most layers had decided after a third of the search, before
     the supernet had learnt much (`benchmarks/decisions.py`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sartor.choose.relax import Multipliers, Relaxation, aims_of, costs, differentiable, priced, settle, spread
from sartor.choose.solve import check_reachable, land
from sartor.core import Batch, Budget, Found, Path, Score, SearchSpace, Task, UserError
from sartor.core.memory import image_layout
from sartor.methods.settings.lightnas import LightNASSettings
from sartor.runs import Run
from sartor.supernet import IdentityMapping
from sartor.training.optimise import cosine, make_optimiser, set_lr, steps_per_epoch
from sartor.training.tasks import smoothed

BETAS = (0.5, 0.999)  # of Adam on the logits (code)
TEMPERATURE_FALL = 8.0  # 5 exp(-0.1 e) over 80 epochs (code)
REACH = 3.0  # how far a logit can travel in a short search (ours)
NEAR = 0.006  # `final_damping` begins within 0.15 ms of 20 to 30 ms (code)


class LightNAS(LightNASSettings):
    """Differentiable search that lands on a budget. Hyper-parameters are the fields; see the module's docstring."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        if not space.has_supernet:
            raise UserError(f"lightnas trains a supernet and space {space.name!r} has none; use a space that has one.")
        self.sensible(len(budgets), 0)
        differentiable("lightnas", [b.score for b in budgets])

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search; `objectives` stay unused: quality is the supernet's loss on the task."""
        self.check(space, budgets)
        if task is None:
            raise UserError("lightnas trains on data; give it a task such as --data digits.")
        aims = aims_of(budgets, check_reachable(space, budgets))
        if self.label_smoothing is not None:
            task = smoothed(task, self.label_smoothing)
        torch.backends.cudnn.deterministic = True  # or a resumed search would end with slightly other weights

        torch.manual_seed(run.torch_seed("weights"))
        supernet: Any = space.supernet()
        identity = IdentityMapping.of(space, supernet) if self.identity else None
        trained: Any = nn.ModuleList([m for m in (supernet, identity) if m is not None])
        trained.to(task.device, memory_format=image_layout(task.device))
        relaxation = Relaxation(space, torch.Generator().manual_seed(run.torch_seed("logits"))).to(task.device)
        multipliers = Multipliers(budgets, rate=self.multiplier_lr, sign_clip=self.sign_clip)
        if self.multiplier is not None:
            multipliers.values = [self.multiplier] * len(budgets)
        w = make_optimiser(
            trained,
            "sgd",
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_bias_and_norm=True,
        )
        alpha = torch.optim.Adam(
            relaxation.parameters(), self._arch_lr(task), betas=BETAS, weight_decay=self.arch_weight_decay
        )
        if self.paths == "all" and not getattr(supernet, "mixes", False):
            raise UserError(f"the supernet of space {space.name!r} runs one path at a time; leave out paths=all.")
        s = _Search(task, run, supernet, identity, trained, relaxation, multipliers, aims, w, alpha)

        for epoch in run.steps(
            self.epochs, trained=trained, relaxation=relaxation, multipliers=multipliers, w=w, alpha=alpha
        ):
            torch.manual_seed(run.torch_seed("dropout", epoch))
            paths = torch.Generator().manual_seed(run.torch_seed("paths", epoch))
            tau = self.temperature * math.exp(-TEMPERATURE_FALL * self._progress(epoch))
            warm = epoch < self.warmup_epochs
            fields: dict[str, Any] = {"epoch": epoch, "of": "warm-up" if warm else "search", "temperature": tau}
            if identity is not None:
                identity.phi = self.identity * (1 - self._progress(epoch + 1))  # 0 in the last epoch
                fields["identity"] = identity.phi
            trained.train()
            if self.accuracy_term:
                fields["loss"] = self._train_weights(s, epoch, tau, paths)
            if not warm:
                fields |= self._train_logits(s, epoch, tau, paths)
            prices = costs(relaxation, budgets, multipliers.values)
            run.log("epoch", **fields, **prices, permille=relaxation.course())

        argmax = priced(relaxation.argmax(), [b.score for b in budgets], "argmax")
        winner = argmax
        if self.land:
            reward = relaxation.log_probabilities()
            winner = land(space, reward, budgets, start=argmax.architecture, rng=run.rng("landing"))
        return Found(space, "lightnas", tuple(budgets), winner, argmax, {"multipliers": list(multipliers.values)})

    # ------------------------------------------------------------------ the two updates of an epoch

    def _train_weights(self, s: _Search, epoch: int, tau: float, generator: torch.Generator) -> float:
        """w <- w - eta dCE_train / dw on one sampled path a batch (or all K in a fair warm-up)."""
        losses: list[float] = []
        steps = steps_per_epoch(s.task, "train", self.batch_size)
        for i, batch in enumerate(s.task.batches("train", size=self.batch_size, seed=s.run.seed, epoch=epoch)):
            set_lr(s.w, cosine(epoch * steps + i, self.epochs * steps, peak=self.lr))
            with torch.no_grad():
                fair = self.fair_warmup and epoch < self.warmup_epochs
                paths = s.relaxation.ordered(tau, generator) if fair else [self._draw(s, tau, generator)]
            s.w.zero_grad(set_to_none=True)  # what has no gradient is not moved, decayed or given momentum
            for path in paths:
                loss = s.loss(path if path.mixed else replace(path, gates=None), batch)
                loss.backward()
                losses.append(float(loss.detach()))
            on_path = [p for p in s.trained.parameters() if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(on_path, self.clip_norm)
            s.w.step()
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise UserError(f"the loss is {mean} in epoch {epoch + 1} of the search; lower lr={self.lr:g}.")
        return mean

    def _train_logits(self, s: _Search, epoch: int, tau: float, generator: torch.Generator) -> dict[str, float]:
        """alpha <- alpha - eta dL / dalpha, then the multiplier, every batch."""
        budgets, losses, solved = s.multipliers.budgets, [], []
        steps = steps_per_epoch(s.task, "valid", self.batch_size)
        s.trained.requires_grad_(False)
        batches = s.task.batches("valid", size=self.batch_size, seed=s.run.seed, epoch=epoch, limit=steps)
        for i, batch in enumerate(batches):
            path = self._draw(s, tau, generator)
            assert path.gates is not None
            if self._settling:
                loss = self.decision * self._progress(epoch) * spread(s.relaxation, budgets)
            else:
                loss = s.multipliers.penalty(path.gates)
            if self.accuracy_term:
                cross_entropy = s.loss(path, batch)
                losses.append(float(cross_entropy.detach()))
                loss = cross_entropy + loss
            set_lr(s.alpha, self._arch_lr(s.task) * self._arch_factor(epoch, s))
            s.alpha.zero_grad(set_to_none=True)
            loss.backward()
            if self._settling:
                solved.append(settle(s.relaxation, budgets, s.aims, s.alpha, self._progress(epoch + (i + 1) / steps)))
            else:
                s.alpha.step()
                if self.multiplier is None:
                    s.multipliers.update(s.relaxation.argmax())
        s.trained.requires_grad_(True)
        if solved:  # one update's multiplier is as noisy as its batch
            s.multipliers.values = [statistics.median(column) for column in zip(*solved)]
        return {"valid_loss": sum(losses) / len(losses)} if losses else {}

    def _draw(self, s: _Search, tau: float, generator: torch.Generator) -> Path:
        """A sampled path, or what DARTS runs: all candidates, weighed by P."""
        if self.paths == "one":
            return s.relaxation.sample(tau, generator)
        return Path(s.relaxation.argmax(), s.relaxation.probabilities(), mixed=True)

    # ------------------------------------------------------------------ schedules

    @property
    def _settling(self) -> bool:
        return self.controller == "settling" and self.multiplier is None

    def _progress(self, epoch: float) -> float:
        """Share of the unfrozen part that has passed, 0 to 1."""
        return max(0.0, epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)

    def _updates(self, task: Task) -> int:
        return max(1, (self.epochs - self.warmup_epochs) * steps_per_epoch(task, "valid", self.batch_size))

    def _arch_lr(self, task: Task) -> float:
        return self.arch_lr or max(1e-3, REACH / self._updates(task))

    def _arch_factor(self, epoch: int, s: _Search) -> float:
        """The code's rules 3 and 2: halve the rate each quarter; once near the budget in the last eighth, slow down."""
        factor = 0.5 ** int(4 * self._progress(epoch)) if self.halving else 1.0
        if self.final_damping and self._progress(epoch) >= 7 / 8:
            argmax = s.relaxation.argmax()
            gap = max(abs(b.gap_percent(float(b.score([argmax])[0]))) / 100 for b in s.multipliers.budgets)
            s.multipliers.near = s.multipliers.near or gap < NEAR
            factor *= gap if s.multipliers.near else 1.0
        return factor


@dataclass(frozen=True)
class _Search:
    """What a search carries from epoch to epoch."""

    task: Task
    run: Run
    supernet: Any
    identity: IdentityMapping | None
    trained: nn.Module
    relaxation: Relaxation
    multipliers: Multipliers
    aims: Sequence[float]
    w: torch.optim.Optimizer
    alpha: torch.optim.Optimizer

    def loss(self, path: Path, batch: Batch) -> Tensor:
        """Cross-entropy of one path on a batch."""
        path = replace(path, around=self.identity)
        return self.task.loss(lambda *x: self.supernet(*x, path=path), batch)
