"""SurgeNAS: one-level, fair, single-path differentiable search.

X. Luo, D. Liu, S. Huai, H. Kong, H. Chen, W. Liu, "SurgeNAS: A Comprehensive Surgery on Hardware-Aware Differentiable
Neural Architecture Search", IEEE TC 2022; thesis chapter 3 and appendix A.

    for every batch                                                                        Eq. 3.12, 3.16
        draw K paths that together take every operator of every layer exactly once         Algorithm 1
        for each path: backward of CE(w, path) + beta LAT(path), summed
        w by SGD, alpha by Adam, on the same batch (one level)
    X_{l+1} = gate O_k(X_l) + phi S_l(X_l),  phi from 2 linearly to 0                      Eq. 3.10
    network: argmax of alpha

Where we differ from the text: the identity mapping is added once per layer, of cells once per cell (the print adds it
once per operator, in which case it would weigh K phi; Eq. 3.6 weighs it by sum_k p_k = 1); the re-normalised P of
Algorithm 1 is a masked log softmax, exact where 0 / 0 stood. What the text leaves open: S_l where the shape changes is
a 1x1 convolution with batch norm, then 2x2 max pooling (LightNAS code), both thrown away with phi; the temperature
falls exponentially while the logits train (it has no say in which path is drawn, only in the gradient); phi falls over
the whole search and is exactly 0 in its last epoch; Adam's betas are those of the sister system, and so is that logits
start at 1e-3 N(0, 1). Eq. 3.10 and 3.12 print the soft sample, Algorithm 1 the binary one: paths run binary, gradients
are straight-through. Sums over layers (3.1, 3.6, 3.10) are compositions. Norms of the supernet have no scale and shift;
the learning rate of the weights falls per step. `arch_lr`: below some 10,000 updates it is raised, as in LightNAS.

Where no cost is weighed the network has no `none` (as in DARTS; with `none=True`, as in the paper, it may): the
straight-through gradient of a candidate that gives zero is zero, so that its logit is moved by the others' alone, and
in our searches by their noise.

The K paths use every operator once, so their summed cost does not depend on alpha where costs add up: beta acts
through the straight-through gradient alone, and the summed loss would show nothing. The log says what the argmax costs.

Nobody can guess beta. With a budget instead, the multiplier machinery of LightNAS drives it: beta is the one that
leaves the expected cost where the budget wants it (`choose.relax.settle`), P is sharpened and the spread of the cost
joins the loss, weighed by `decision` and the number of paths, and the search ends with a landing. None of that is
published, also not with `SurgeNAS.paper()`.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sartor.choose.relax import Relaxation, aims_of, costs, differentiable, priced, settle, spread
from sartor.choose.solve import check_reachable, land
from sartor.core import Batch, Budget, Found, Path, Score, SearchSpace, SoftScore, Task, UserError
from sartor.core.memory import image_layout
from sartor.methods.settings.surgenas import SurgeNASSettings
from sartor.runs import Run
from sartor.supernet import IdentityMapping
from sartor.training.optimise import cosine, make_optimiser, set_lr, steps_per_epoch

BETAS = (0.5, 0.999)  # of Adam on the logits (LightNAS code)
REACH = {False: 10.0, True: 3.0}  # how far a logit can travel in a short search; less where P is sharpened (ours)
ABSENT = "none"  # how a candidate that gives zero is called
NOTHING = ("skip", ABSENT)  # candidates that compute nothing
logger = logging.getLogger("sartor")


class SurgeNAS(SurgeNASSettings):
    """Differentiable search in which all operators train alike. Hyper-parameters are the fields."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        if not space.has_supernet:
            raise UserError(f"surgenas trains a supernet and space {space.name!r} has none; use a space that has one.")
        differentiable("surgenas", [b.score for b in budgets])

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search; `objectives` are the costs that beta weighs, where there is no budget."""
        self.check(space, budgets)
        if task is None:
            raise UserError("surgenas trains on data; give it a task such as --data digits.")
        self.sensible(len(budgets), len(objectives))
        weighed = [] if budgets else differentiable("surgenas", objectives)
        aims = aims_of(budgets, check_reachable(space, budgets))
        torch.backends.cudnn.deterministic = True  # or a resumed search would end with slightly other weights

        torch.manual_seed(run.torch_seed("weights"))
        supernet: Any = space.supernet()
        identity = IdentityMapping.of(space, supernet) if self.identity else None
        trained: Any = nn.ModuleList([m for m in (supernet, identity) if m is not None])
        trained.to(task.device, memory_format=image_layout(task.device))
        relaxation = Relaxation(space, torch.Generator().manual_seed(run.torch_seed("logits"))).to(task.device)
        w = make_optimiser(
            trained,
            "sgd",
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_bias_and_norm=True,
        )
        rate = self._arch_lr(task, sharpened=bool(budgets))
        alpha = torch.optim.Adam(relaxation.parameters(), rate, betas=BETAS, weight_decay=self.arch_weight_decay)
        s = _Search(task, run, supernet, identity, trained, relaxation, tuple(budgets), tuple(aims), weighed, w, alpha)

        without = None if budgets or self.beta or self.none else ABSENT
        for epoch in run.steps(self.epochs, trained=trained, relaxation=relaxation, w=w, alpha=alpha):
            done = epoch / (self.epochs - 1) if self.epochs > 1 else 1.0
            cooled = max(0, epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs - 1)
            tau = self.temperature * (self.last_temperature / self.temperature) ** cooled
            if identity is not None:
                identity.phi = self.identity * (1 - done)
            loss, multipliers = self._epoch(s, epoch, tau)
            leading = relaxation.argmax(without)
            run.log(
                "epoch",
                epoch=epoch,
                of="search" if epoch >= self.warmup_epochs else "warm-up",
                temperature=tau,
                identity=0.0 if identity is None else identity.phi,
                loss=loss,
                skips=skips(space, leading),
                **costs(relaxation, budgets, multipliers),
                **priced(leading, weighed, "argmax").predicted,
                permille=relaxation.course(),
            )

        argmax = priced(relaxation.argmax(without), [*(b.score for b in budgets), *weighed], "argmax")
        found = argmax
        if self.land and budgets:
            reward = relaxation.log_probabilities()
            found = land(space, reward, budgets, start=argmax.architecture, rng=run.rng("landing"))
        empty = skips(space, found.architecture)
        collapsed = empty == sum(space.active(found.architecture))
        if collapsed:
            less = "raise the budget" if budgets else "lower beta" if self.beta else "search for more epochs"
            logger.warning("the search collapsed: every layer of the network found is a skip; %s", less)
        return Found(space, "surgenas", tuple(budgets), found, argmax, {"skips": empty, "collapsed": collapsed})

    def _epoch(self, s: _Search, epoch: int, tau: float) -> tuple[float, list[float]]:
        """One pass over the data: K paths a batch, then both optimisers. Returns mean loss and median multipliers."""
        torch.manual_seed(s.run.torch_seed("dropout", epoch))
        draws = torch.Generator().manual_seed(s.run.torch_seed("paths", epoch))
        searching, losses, solved = epoch >= self.warmup_epochs, [], []
        steps = steps_per_epoch(s.task, "trainvalid", self.batch_size)
        s.trained.train()
        for i, batch in enumerate(s.task.batches("trainvalid", size=self.batch_size, seed=s.run.seed, epoch=epoch)):
            set_lr(s.w, cosine(epoch * steps + i, self.epochs * steps, peak=self.lr))
            s.w.zero_grad(set_to_none=True)
            s.alpha.zero_grad(set_to_none=True)
            paths = s.relaxation.ordered(tau, draws)
            slopes: list[Tensor] = []
            for path in paths:
                # cut off from the logits, so that the graph of a path is gone before the next one is built
                gates = tuple(gate.detach().requires_grad_(searching) for gate in path.gates or ())
                loss = s.loss(Path(path.index, gates, s.identity), batch)
                losses.append(float(loss.detach()))
                for score in s.weighed if searching else ():
                    loss = loss + (self.beta or 0.0) * score.soft(gates)
                loss.backward()
                slopes += [torch.zeros_like(g) if g.grad is None else g.grad for g in gates]
            nn.utils.clip_grad_norm_([p for p in s.trained.parameters() if p.grad is not None], self.clip_norm)
            s.w.step()
            if not searching:
                continue
            torch.autograd.backward([gate for path in paths for gate in path.gates or ()], slopes)
            if s.budgets:
                # the loss is a sum over paths, and so is what it is weighed against
                decided = len(paths) * self.decision * self._unfrozen(epoch) * spread(s.relaxation, s.budgets)
                decided.backward()
                done = self._unfrozen(epoch + (i + 1) / steps)
                solved.append(settle(s.relaxation, s.budgets, s.aims, s.alpha, done))
            else:
                s.alpha.step()
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise UserError(f"the loss is {mean} in epoch {epoch + 1} of the search; lower lr={self.lr:g}.")
        return mean, [statistics.median(column) for column in zip(*solved)] or [0.0] * len(s.budgets)

    def _unfrozen(self, epoch: float) -> float:
        """Share of the unfrozen part that has passed, 0 to 1."""
        return max(0.0, epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)

    def _arch_lr(self, task: Task, sharpened: bool) -> float:
        updates = (self.epochs - self.warmup_epochs) * steps_per_epoch(task, "trainvalid", self.batch_size)
        return self.arch_lr or max(7.5e-4, REACH[sharpened] / updates)


@dataclass(frozen=True)
class _Search:
    """What a search carries from epoch to epoch."""

    task: Task
    run: Run
    supernet: Any
    identity: IdentityMapping | None
    trained: nn.Module
    relaxation: Relaxation
    budgets: tuple[Budget, ...]
    aims: tuple[float, ...]
    weighed: Sequence[SoftScore]
    w: torch.optim.Optimizer
    alpha: torch.optim.Optimizer

    def loss(self, path: Path, batch: Batch) -> Tensor:
        """Cross-entropy of one path on a batch."""
        return self.task.loss(lambda *x: self.supernet(*x, path=path), batch)


def skips(space: SearchSpace, arch: Sequence[int]) -> int:
    """How many layers of a network are skips: nothing, or no more than a change of shape asks for."""
    chosen = zip(space.slots, arch, space.active(arch))
    return sum(on and slot.candidates[k].startswith(NOTHING) for slot, k, on in chosen)
