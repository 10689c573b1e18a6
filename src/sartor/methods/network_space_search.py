"""Network Space Search: a search for a space of good networks of a stated cost, the Elite Space.

M.-F. Hong et al., "Network Space Search for Pareto-Efficient Spaces", 2021.

    min over Theta, min over w   E_{A ~ P_Theta} E_{a ~ U(A)} [ L(a, w) ]                        Eq. 3
    L = L_task + lambda |cost(A) / target - 1|                                                   Eq. 4, 5

    A: a window of neighbouring depths and one of neighbouring widths for each stage             `spaces/windows.py`
    w on `train`: a space from P_Theta, a network from the space, one step                       `_train_weights`
    Theta on `valid`: the same with a Gumbel gate a window; the gates of widths, added up from the widest on, mask the
    channels, those of depths weigh the outputs of blocks (6.3.1, FBNetV2)                       `_train_logits`
    warm-up: Theta stays; each depth and width is the largest one with a chance that falls from 1 to 0 (6.3.2)
    in the end: of five spaces drawn from P_Theta that with the cost nearest to the target (4.1)  `_nearest`

What the paper leaves open or says twice, and what we took:
  - the cost of a space. `mean`: of a network drawn uniformly, exact for what is a polynomial of the sizes; `effective`:
    of the mean sizes, as FBNetV2 estimates it, up to a quarter less. `paper()` has the latter.
  - whether gates are hard or soft (`gates`); hard ones are one-hot in value and soft in gradient. Weights are trained
    on the drawn network alone in both cases: a mixture costs what the largest network does, and is none of them.
  - lambda (`multiplier`); rates and decays, for which 4.1 refers to FBNetV2 and 6.4.1 to DARTS: those of DARTS; how
    masks and norms go together (`layers/residual.py`).
  - who is updated when: weights for an epoch, then Theta for one, as FBNet does.
  - several budgets: with the fixed multiplier each pulls from both sides, also an upper limit that is kept.
  - "all blocks enabled": the stage ends behind its last block.
  - the length of the warm-up, which is a quarter of the epochs in 6.3.2 and 15 of 50 in 6.4.1: the latter.

Where we differ in every mode: `valid` is a fifth of the training data, not half, in a fixed order, not augmented, of
which whole batches are used; blocks that a step does not use are left alone (channels that it does not use have a
gradient of zero, and are decayed and moved by momentum); the learning rate falls per step, the chance of the largest
sizes per epoch.

Where our defaults differ, all of it undone by `NetworkSpaceSearch.paper()`:
  1. `controller`. A fixed multiplier of an absolute violation lands where it balances the task's loss. Ours is that of
     LightNAS (`choose.relax.settle`): in every update P is moved to the nearest distribution whose expected cost is in
     the middle of what lands (2.5 % below an upper limit), and sharpened as the search ends, so that the space drawn
     costs what the expectation does. It takes several budgets, of anything that can be counted or predicted.
  2. `land`. The most probable space whose cost is within the limits and at most `tolerance` below one, exactly where
     costs have terms. Networks of one space spread in cost (by 30 % of the mean near 600 M, standard deviation), and
     few spaces have a mean within half a percent below a limit (of the 2^18, 23 at 600 M): a tolerance as for networks
     would leave P no say. Of those that land none is taken for being nearer.
  3. `complexity`, as above.
  4. `arch_lr`. Logits can travel by about 3 in a search of any length.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sartor.choose.relax import Relaxation, aims_of, costs, priced, settle, soft, spread
from sartor.choose.solve import check_reachable, land
from sartor.core import Architecture, Batch, Budget, Found, Json, Landed, Path, Score, SearchSpace, Task, UserError
from sartor.core.memory import image_layout
from sartor.methods.settings.network_space_search import NetworkSpaceSearchSettings
from sartor.runs import Run
from sartor.spaces.windows import Effective, Windows, mean
from sartor.training.optimise import cosine, make_optimiser, set_lr, steps_per_epoch

BETAS = (0.5, 0.999)  # of Adam on the logits (DARTS)
REACH = 3.0  # how far a logit can travel (ours)
LEAST_ARCH_LR = 3e-4  # (DARTS)


class NetworkSpaceSearch(NetworkSpaceSearchSettings):
    """Differentiable search for a space. Hyper-parameters are the fields; see the module's docstring."""

    key: ClassVar[str] = "network-space-search"

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.sensible(len(budgets), 0)
        self._budgets(self._windows(space), budgets)

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. What is found is an architecture of `Windows`, whose `elite` is the space."""
        windows = self._windows(space)
        ours = self._budgets(windows, budgets)
        if task is None:
            raise UserError("network-space-search trains on data; give it a task such as --data digits.")
        aims = aims_of(ours, check_reachable(windows, ours))
        torch.backends.cudnn.deterministic = True  # or a resumed search would end with slightly other weights

        torch.manual_seed(run.torch_seed("weights"))
        supernet: Any = windows.of.supernet()
        supernet.to(task.device, memory_format=image_layout(task.device))
        relaxation = Relaxation(windows, torch.Generator().manual_seed(run.torch_seed("logits"))).to(task.device)
        w = make_optimiser(
            supernet,
            "sgd",
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_bias_and_norm=True,
        )
        alpha = torch.optim.Adam(
            relaxation.parameters(), self._arch_lr(task), betas=BETAS, weight_decay=self.arch_weight_decay
        )
        s = _Search(task, run, windows, supernet, relaxation, ours, aims, w, alpha)
        multipliers = [0.0] * len(ours)
        for epoch in run.steps(self.epochs, supernet=supernet, relaxation=relaxation, w=w, alpha=alpha):
            torch.manual_seed(run.torch_seed("dropout", epoch))
            gumbel = torch.Generator().manual_seed(run.torch_seed("spaces", epoch))
            rng = run.rng("members", epoch)
            tau = self.temperature + (self.last_temperature - self.temperature) * epoch / max(1, self.epochs - 1)
            warm = epoch < self.warmup
            fields: dict[str, Any] = {"epoch": epoch, "of": "warm-up" if warm else "search", "temperature": tau}
            supernet.train()
            if self.accuracy_term:
                fields["loss"] = self._train_weights(s, epoch, tau, gumbel, rng)
            if not warm:
                told, multipliers = self._train_logits(s, epoch, tau, gumbel, rng)
                fields |= told
            run.log("epoch", **fields, **costs(relaxation, ours, multipliers), permille=relaxation.course())

        winner = argmax = priced(relaxation.argmax(), [b.score for b in ours], "argmax")
        drawn = self._drawn(s)
        if self.land:
            reward = relaxation.log_probabilities()
            winner = land(windows, reward, ours, start=argmax.architecture, rng=run.rng("landing"))
        else:
            winner = self._nearest(s, drawn)
        extras = {"elite": windows.elite(winner.architecture).spec(), **self._told(s, winner, drawn, budgets)}
        return Found(windows, self.key, ours, winner, argmax, extras)

    # ------------------------------------------------------------------ the two updates of an epoch

    def _train_weights(
        self, s: _Search, epoch: int, tau: float, gumbel: torch.Generator, rng: np.random.Generator
    ) -> float:
        """w <- w - eta dL_train / dw of one network of one space a batch."""
        total = torch.zeros((), device=s.task.device)
        steps = steps_per_epoch(s.task, "train", self.batch_size)
        largest = [len(slot) - 1 for slot in s.windows.of.slots]
        enabled = self._enabled(epoch)
        for i, batch in enumerate(s.task.batches("train", size=self.batch_size, seed=s.run.seed, epoch=epoch)):
            set_lr(s.w, cosine(epoch * steps + i, self.epochs * steps, peak=self.lr))
            with torch.no_grad():
                chosen = replace(s.relaxation.sample(tau, gumbel), gates=None)
            index = s.windows.path(chosen, s.windows.places(rng)).index
            index = tuple(np.where(rng.random(len(index)) < enabled, largest, index).tolist())
            s.w.zero_grad(set_to_none=True)
            loss = s.loss(Path(index), batch)
            loss.backward()
            nn.utils.clip_grad_norm_([p for p in s.supernet.parameters() if p.grad is not None], self.clip_norm)
            s.w.step()
            total += loss.detach()
        value = float(total) / steps
        if not math.isfinite(value):
            raise UserError(f"the loss is {value} in epoch {epoch + 1} of the search; lower lr={self.lr:g}.")
        return value

    def _train_logits(
        self, s: _Search, epoch: int, tau: float, gumbel: torch.Generator, rng: np.random.Generator
    ) -> tuple[dict[str, float], list[float]]:
        """Theta <- Theta - eta dL_valid / dTheta, every batch; what is to be logged, and the multipliers."""
        losses, solved = torch.zeros((), device=s.task.device), []
        steps = steps_per_epoch(s.task, "valid", self.batch_size)
        s.supernet.requires_grad_(False)
        for i, batch in enumerate(
            s.task.batches("valid", size=self.batch_size, seed=s.run.seed, epoch=epoch, limit=steps)
        ):
            path = s.relaxation.sample(tau, gumbel, hard=self.gates == "hard")
            assert path.gates is not None
            if self.controller == "settling":
                loss = self.decision * self._progress(epoch) * spread(s.relaxation, s.budgets)
            else:
                away = [abs(soft(b).soft(path.gates) / b.limit - 1.0) for b in s.budgets]
                loss = self.multiplier * torch.stack(away).sum()
            if self.accuracy_term:
                task_loss = s.loss(s.windows.path(path, s.windows.places(rng)), batch)
                losses += task_loss.detach()
                loss = loss + task_loss
            s.alpha.zero_grad(set_to_none=True)
            loss.backward()
            if self.controller == "settling":
                solved.append(settle(s.relaxation, s.budgets, s.aims, s.alpha, self._progress(epoch + (i + 1) / steps)))
            else:
                s.alpha.step()
        s.supernet.requires_grad_(True)
        multipliers = [statistics.median(column) for column in zip(*solved)] or [self.multiplier] * len(s.budgets)
        return ({"valid_loss": float(losses) / steps} if self.accuracy_term else {}), multipliers

    # ------------------------------------------------------------------ reading out

    def _drawn(self, s: _Search) -> list[Architecture]:
        """`samples` spaces from P."""
        generator = torch.Generator().manual_seed(s.run.torch_seed("read-out"))
        with torch.no_grad():
            return [s.relaxation.sample(1.0, generator).index for _ in range(self.samples)]

    def _nearest(self, s: _Search, drawn: Sequence[Architecture]) -> Landed:
        """That with the cost nearest to the budgets; of equally near ones the most probable."""
        reward = s.relaxation.log_probabilities()
        gaps = np.max([abs(b.score(drawn) / b.limit - 1.0) for b in s.budgets], axis=0)
        chances = [sum(row[k] for row, k in zip(reward, arch)) for arch in drawn]
        best = min(range(len(drawn)), key=lambda i: (gaps[i], -chances[i]))
        return priced(drawn[best], [b.score for b in s.budgets], "sampled")

    def _told(
        self, s: _Search, winner: Landed, drawn: Sequence[Architecture], budgets: Sequence[Budget]
    ) -> dict[str, Json]:
        """Costs of the space found: mean and range of its networks, as budgets have them; and of what was drawn."""
        members = s.windows.members(winner.architecture, s.run.rng("told"), 1000)
        told: dict[str, Json] = {}
        for budget in budgets:
            values = budget.score(members)
            told[budget.score.metric.name] = {
                "mean": float(values.mean()),
                "lowest": float(values.min()),
                "highest": float(values.max()),
            }
        return {"members": told, "drawn": [list(arch) for arch in drawn]}

    # ------------------------------------------------------------------ set-up

    def _windows(self, space: SearchSpace) -> Windows:
        return Windows(space, self.depths, self.widths)

    def _budgets(self, windows: Windows, budgets: Sequence[Budget]) -> tuple[Budget, ...]:
        """The same limits of spaces."""

        def of(score: Score) -> Score:
            counted = self.complexity == "effective" and score.metric.name == "macs"
            return Effective(windows) if counted else mean(score, windows)

        return tuple(replace(b, score=of(b.score), tolerance=self.tolerance) for b in budgets)

    def _enabled(self, epoch: int) -> float:
        """Chance that a depth or width is the largest one, from 1 to 0 over the warm-up."""
        return max(0.0, 1 - epoch / self.warmup) if self.warmup else 0.0

    def _progress(self, epoch: float) -> float:
        """Share of the unfrozen part that has passed, 0 to 1."""
        return max(0.0, epoch - self.warmup) / max(1, self.epochs - self.warmup)

    def _arch_lr(self, task: Task) -> float:
        updates = (self.epochs - self.warmup) * steps_per_epoch(task, "valid", self.batch_size)
        return self.arch_lr or max(LEAST_ARCH_LR, REACH / max(1, updates))


@dataclass(frozen=True)
class _Search:
    """What a search carries from epoch to epoch."""

    task: Task
    run: Run
    windows: Windows
    supernet: Any
    relaxation: Relaxation
    budgets: Sequence[Budget]
    aims: Sequence[float]
    w: torch.optim.Optimizer
    alpha: torch.optim.Optimizer

    def loss(self, path: Path, batch: Batch) -> Tensor:
        """Cross-entropy of one path on a batch."""
        return self.task.loss(partial(self.supernet, path=path), batch)
