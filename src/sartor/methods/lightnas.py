"""LightNAS: one differentiable search that ends at a stated latency or energy.

X. Luo, D. Liu, H. Kong, S. Huai, H. Chen, W. Liu, "LightNAS: On Lightweight and Scalable Neural Architecture Search
for Embedded Platforms", IEEE TCAD 2022; thesis chapter 4, sections 4.3.3 and 4.3.4.

    minimise over alpha   CE_valid(w, alpha) + lambda (LAT(P) / T - 1)                         Eq. 4.10
    w, alpha by descent, lambda by ascent: lambda += eta (LAT / T - 1)                        Eq. 4.11
    path: argmax of softmax((log P + G) / tau), straight-through                         Eq. 4.7 - 4.9

Where we follow the public code and not the text: Gumbel noise is added to log P (the printed P + G samples from the
wrong distribution); the temperature falls as 5 exp(-8 t) over the unfrozen share t of the search. Four more rules of
the code are options, off as in the text: `sign_clip`, `final_damping`, `halving`, `fair_warmup`.

Where we differ, and `controller="published"`, `land=False` (or `LightNAS.paper()`) undoes it:
  1. The published multiplier integrates the violation of the argmax, one very noisy number a batch, and swings on
     short searches. Ours is solved for: in every update lambda is the one with which the gradient of Eq. 4.10 leaves
     the expected cost as it is (`balance`), and P is then moved to the nearest distribution whose expected cost is
     the budget (`hold`). To make the argmax cost what the expectation does, P is sharpened as the search ends and
     the spread of the cost under P joins the loss, with a weight that grows from 0 to `decision`.
  2. Landing: an integer program picks, among the architectures inside the budgets, the most probable one.
  3. Several budgets are a vector of multipliers.
  4. The update of the logits computes no gradients of the weights, which the published code computes and discards.
  5. Adam moves a logit by at most its learning rate an update: with fewer than 10,000 updates the rate is raised so
     that logits can travel as far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sartor.choose.relax import Multipliers, Relaxation, balance, hold, soft, spread
from sartor.choose.solve import check_reachable, land
from sartor.core import Budget, Found, Landed, Path, Score, SearchSpace, SoftScore, Task, UserError
from sartor.methods.settings import LightNASSettings
from sartor.runs import Run
from sartor.training.optimise import cosine, set_lr, sgd, steps_per_epoch

BETAS = (0.5, 0.999)  # of Adam on the logits (code)
TEMPERATURE_FALL = 8.0  # 5 exp(-0.1 e) over 80 epochs (code)
SHARPNESS = 8.0  # logits are multiplied by up to this at the end of the search
NEAR = 0.006  # `final_damping` begins within 0.15 ms of 20 to 30 ms (code)


class LightNAS(LightNASSettings):
    """Differentiable search that lands on a budget. Hyper-parameters are the fields; see the module's docstring."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        if not space.has_supernet:
            raise UserError(f"lightnas trains a supernet and space {space.name!r} has none; use a space that has one.")
        if not budgets:
            raise UserError("lightnas needs a budget; add one such as --budget 20ms.")
        for budget in budgets:
            if not isinstance(budget.score, SoftScore):
                raise UserError(
                    f"lightnas needs a differentiable {budget.score.metric.name} predictor: ridge, lookup or mlp."
                )

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search; `objectives` stay unused: quality is the supernet's loss on the task."""
        self.check(space, budgets)
        if task is None:
            raise UserError("lightnas trains on data; give it a task such as --data digits.")
        check_reachable(space, budgets)

        torch.manual_seed(run.torch_seed("weights"))
        supernet: Any = space.supernet()
        supernet.to(task.device, memory_format=torch.channels_last)  # up to 2.5 times faster on CPUs
        generator = torch.Generator().manual_seed(run.torch_seed("logits"))
        relaxation = Relaxation(space, generator).to(task.device)
        multipliers = Multipliers(budgets, rate=self.multiplier_lr, sign_clip=self.sign_clip)
        if self.multiplier is not None:
            multipliers.values = [self.multiplier] * len(budgets)
        weights = sgd(
            supernet, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, decay_bias_and_norm=True
        )
        logits = torch.optim.Adam(
            relaxation.parameters(), self._arch_lr(task), betas=BETAS, weight_decay=self.arch_weight_decay
        )
        state = {
            "supernet": supernet,
            "relaxation": relaxation,
            "multipliers": multipliers,
            "w": weights,
            "alpha": logits,
        }

        for epoch in run.steps(self.epochs, **state):
            torch.manual_seed(run.torch_seed("dropout", epoch))
            generator = torch.Generator().manual_seed(run.torch_seed("paths", epoch))
            tau = self.temperature * math.exp(-TEMPERATURE_FALL * self._progress(epoch))
            fields: dict[str, Any] = {"epoch": epoch, "temperature": tau}
            supernet.train()
            if self.accuracy_term:
                fields["loss"] = self._train_weights(supernet, relaxation, weights, task, run, epoch, tau, generator)
            if epoch >= self.warmup_epochs:
                set_lr(logits, self._arch_lr(task) * self._arch_factor(epoch, relaxation, budgets))
                fields["valid_loss"] = self._train_logits(
                    supernet, relaxation, multipliers, logits, task, run, epoch, tau, generator
                )
            run.log("epoch", **fields, **self._report(relaxation, multipliers))

        argmax = _priced(relaxation.argmax(), budgets, "argmax")
        winner = argmax
        if self.land:
            reward = relaxation.log_probabilities()
            winner = land(space, reward, budgets, start=argmax.architecture, rng=run.rng("landing"))
        return Found(space, "lightnas", tuple(budgets), winner, argmax, {"multipliers": list(multipliers.values)})

    # ------------------------------------------------------------------ the two updates of an epoch

    def _train_weights(
        self,
        supernet: Any,
        relaxation: Relaxation,
        optimiser: torch.optim.Optimizer,
        task: Task,
        run: Run,
        epoch: int,
        tau: float,
        generator: torch.Generator,
    ) -> float:
        """w <- w - eta dCE_train / dw on one sampled path a batch (or all K in a fair warm-up)."""
        total, seen = 0.0, 0
        steps = steps_per_epoch(task, "train", self.batch_size)
        for i, batch in enumerate(task.batches("train", size=self.batch_size, seed=run.seed, epoch=epoch)):
            set_lr(optimiser, cosine(epoch * steps + i, self.epochs * steps, peak=self.lr))
            with torch.no_grad():
                fair = self.fair_warmup and epoch < self.warmup_epochs
                paths = relaxation.ordered(tau, generator) if fair else [relaxation.sample(tau, generator)]
            optimiser.zero_grad(set_to_none=True)  # what has no gradient is not moved, decayed or given momentum
            for path in paths:
                plain = Path(path.index)
                loss = task.loss(lambda *x, p=plain: supernet(*x, path=p), batch)
                loss.backward()  # type: ignore[no-untyped-call]
                total, seen = total + float(loss.detach()), seen + 1
            torch.nn.utils.clip_grad_norm_([p for p in supernet.parameters() if p.grad is not None], self.clip_norm)
            optimiser.step()
        return total / max(seen, 1)

    def _train_logits(
        self,
        supernet: Any,
        relaxation: Relaxation,
        multipliers: Multipliers,
        optimiser: torch.optim.Optimizer,
        task: Task,
        run: Run,
        epoch: int,
        tau: float,
        generator: torch.Generator,
    ) -> float:
        """alpha <- alpha - eta dL / dalpha, then the multiplier, every batch."""
        budgets = multipliers.budgets
        supernet.requires_grad_(False)
        total, steps = 0.0, steps_per_epoch(task, "valid", self.batch_size)
        for i, batch in enumerate(task.batches("valid", size=self.batch_size, seed=run.seed, epoch=epoch, limit=steps)):
            path = relaxation.sample(tau, generator)
            assert path.gates is not None
            if self._settling:
                loss = self.decision * self._progress(epoch) * spread(relaxation, budgets)
            else:
                loss = multipliers.penalty(path.gates)
            if self.accuracy_term:
                cross_entropy = task.loss(lambda *x, p=path: supernet(*x, path=p), batch)
                total, loss = total + float(cross_entropy.detach()), cross_entropy + loss
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if self._settling:
                multipliers.values = balance(relaxation, budgets)
            optimiser.step()
            if self._settling:
                relaxation.sharpness.fill_(SHARPNESS ** self._progress(epoch + (i + 1) / steps))
                hold(relaxation, budgets)
            elif self.multiplier is None:
                multipliers.update(relaxation.argmax())
        supernet.requires_grad_(True)
        return total / steps

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
        return self.arch_lr or max(1e-3, 10.0 / self._updates(task))

    def _arch_factor(self, epoch: int, relaxation: Relaxation, budgets: Sequence[Budget]) -> float:
        factor = 0.5 ** int(4 * self._progress(epoch)) if self.halving else 1.0
        if self.final_damping and self._progress(epoch) >= 0.9:
            gaps = [abs(b.gap_percent(float(b.score([relaxation.argmax()])[0]))) / 100 for b in budgets]
            factor *= max(gaps) if max(gaps) < NEAR else 1.0
        return factor

    def _report(self, relaxation: Relaxation, multipliers: Multipliers) -> dict[str, Any]:
        """What every log line says: cost of the argmax, expected cost, gap to the budget, multiplier."""
        with torch.no_grad():
            expected = [soft(b).soft(relaxation.probabilities()) for b in multipliers.budgets]
        argmax, out = relaxation.argmax(), {}
        for budget, mean, value in zip(multipliers.budgets, expected, multipliers.values):
            name, cost = budget.score.metric.name, float(budget.score([argmax])[0])
            out[name] = cost
            out[f"expected_{name}"] = float(mean)
            out[f"gap_percent_{name}"] = budget.gap_percent(cost)
            out[f"multiplier_{name}"] = value
        return out


def _priced(arch: tuple[int, ...], budgets: Sequence[Budget], status: str) -> Landed:
    return Landed(arch, {b.score.metric.name: float(b.score([arch])[0]) for b in budgets}, status)
