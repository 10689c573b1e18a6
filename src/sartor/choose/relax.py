"""Choosing by gradient: a probability per candidate, sampled paths, and multipliers that hold a budget.

Shapes: logits (L, K) over L slots and the largest number K of candidates; absent entries are -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import lsq_linear, minimize
from torch import Tensor, nn

from sartor.core import Architecture, F, Landed, Score, SearchSpace, UserError
from sartor.core.score import Budget, SoftScore
from sartor.core.task import Path

SHARPNESS = 8.0  # what `settle` multiplies logits by at the end of a search


class Relaxation(nn.Module):
    """Independent categorical distributions over the candidates of every slot (Eq. 4.5, 4.6).

    P = softmax(sharpness x logits). logits: parameter, init_std x N(0, 1) from `generator`; sharpness: 1, raised by a
    method that wants P to approach its argmax.
    """

    absent: Tensor
    sharpness: Tensor

    def __init__(self, space: SearchSpace, generator: torch.Generator, init_std: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        widths = [len(slot) for slot in space.slots]
        shape = (len(widths), max(widths))
        self.logits = nn.Parameter(init_std * torch.randn(shape, generator=generator))
        self.register_buffer("sharpness", torch.ones(()))
        self.register_buffer("absent", torch.arange(shape[1]) >= torch.tensor(widths)[:, None], persistent=False)

    def log_p(self) -> Tensor:
        """(L, K) log-probabilities; -inf where a candidate does not exist."""
        return torch.log_softmax((self.sharpness * self.logits).masked_fill(self.absent, -torch.inf), dim=1)

    def probabilities(self) -> tuple[Tensor, ...]:
        """Per slot (candidates,), as gates for a SoftScore: the expected architecture."""
        return self._rows(self.log_p().exp())

    def argmax(self, without: str | None = None) -> Architecture:
        """The most probable candidate of every slot; where no slot hangs on another, the most probable architecture.

        without: name of a candidate that is taken only where a slot has no other.
        """
        log_p = self.log_p().detach().clone()
        for i, slot in enumerate(self.space.slots):
            if without is not None and without in slot.candidates and len(slot) > 1:
                log_p[i, list(slot.candidates).index(without)] = -torch.inf
        return self.space.canonical(tuple(log_p.argmax(dim=1).tolist()))

    def course(self) -> list[list[float]]:
        """Per slot the probabilities in per mille: a line of the journal, for drawing how a search decided."""
        return [[round(1000 * p, 2) for p in row.tolist()] for row in self.probabilities()]

    def log_probabilities(self) -> tuple[F, ...]:
        """Per slot (candidates,) float64, detached: the reward of a landing."""
        return tuple(row.detach().double().cpu().numpy() for row in self._rows(self.log_p()))

    def sample(self, temperature: float, generator: torch.Generator, *, hard: bool = True) -> Path:
        """One Gumbel path with straight-through gates (Eq. 4.7 with log P for the printed P, Eq. 4.9), or soft ones."""
        return self._draw(self.log_p(), temperature, generator, hard)[0]

    def ordered(self, temperature: float, generator: torch.Generator) -> list[Path]:
        """K paths that together take every candidate of every unconditional slot once (Algorithm 1 of the thesis).

        Path i is drawn from the candidates not used by paths before it, with fresh noise: the order follows
        Plackett-Luce. A slot with fewer than K candidates starts over when all of its own are used; one that hangs on
        another uses up a candidate only in paths in which it exists.
        """
        used, paths, log_p = self.absent.clone(), [], self.log_p()
        for _ in range(self.absent.shape[1]):
            used = torch.where(used.all(dim=1, keepdim=True), self.absent, used)
            # softmax over what remains is the re-normalised P without its 0 / 0
            remaining = torch.log_softmax(log_p.masked_fill(used, -torch.inf), dim=1)
            path, chosen = self._draw(remaining, temperature, generator)
            exists = torch.tensor(self.space.active(path.index), device=used.device)[:, None]
            used = used | torch.zeros_like(used).scatter(1, chosen, True) & exists
            paths.append(path)
        return paths

    def _draw(
        self, log_p: Tensor, temperature: float, generator: torch.Generator, hard: bool = True
    ) -> tuple[Path, Tensor]:
        noise = -torch.empty(log_p.shape).exponential_(generator=generator).log()
        soft = torch.softmax((log_p + noise.to(log_p.device)) / temperature, dim=1)
        chosen = soft.argmax(dim=1, keepdim=True)
        # one-hot in value, soft in gradient; the path is routed by the index, never by comparing a gate with 1
        gates = torch.zeros_like(soft).scatter(1, chosen, 1.0) + (soft - soft.detach()) if hard else soft
        index = self.space.canonical(tuple(chosen[:, 0].tolist()))
        return Path(index, self._rows(gates)), chosen

    def _rows(self, matrix: Tensor) -> tuple[Tensor, ...]:
        return tuple(row[: len(slot)] for row, slot in zip(matrix, self.space.slots))


def aims_of(budgets: Sequence[Budget], ranges: Sequence[tuple[float, float]]) -> list[float]:
    """Where `hold` holds each expected cost: the middle of the budget's interval, a little inside the reachable range.

    ranges: lowest and highest cost of the space under each budget. An expectation cannot reach either end.
    """
    aims = []
    for budget, (low, high) in zip(budgets, ranges):
        margin = 1e-3 * (high - low)
        aims.append(min(max(sum(budget.interval) / 2, low + margin), high - margin))
    return aims


def balance(relaxation: Relaxation, budgets: Sequence[Budget], aims: Sequence[float]) -> list[float]:
    """Add lambda d(cost / limit) / dlogits to the gradient of the logits, so that the sum does not move the costs.

    That is the gradient of Eq. 4.10 with the multipliers solved for (least squares, as in a stationary point) where
    Eq. 4.11 integrates them. Returns them, in loss per relative violation. A budget met with equality (a single one,
    or sense `at`) has a multiplier of either sign; of several upper limits only those reached push, and only down.
    """
    gradient = relaxation.logits.grad
    assert gradient is not None
    probabilities = relaxation.probabilities()
    costs = [soft(b).soft(probabilities) / b.limit for b in budgets]
    binding = [
        k
        for k, (cost, budget, aim) in enumerate(zip(costs, budgets, aims))
        if _equality(budgets, budget) or float(cost.detach()) * budget.limit >= aim * (1 - 1e-3)
    ]
    values = [0.0] * len(budgets)
    if binding:
        slopes = [torch.autograd.grad(costs[k], relaxation.logits, retain_graph=True)[0] for k in binding]
        matrix = np.stack([s.double().cpu().numpy().ravel() for s in slopes], axis=1)
        low = [-np.inf if _equality(budgets, budgets[k]) else 0.0 for k in binding]
        solved = lsq_linear(matrix, -gradient.double().cpu().numpy().ravel(), bounds=(low, np.inf)).x
        gradient += torch.as_tensor((matrix @ solved).reshape(gradient.shape)).to(gradient)
        for k, value in zip(binding, solved):
            values[k] = float(value)
    return values


def hold(relaxation: Relaxation, budgets: Sequence[Budget], aims: Sequence[float], rounds: int = 4) -> None:
    """Move P to the nearest distribution (in relative entropy) whose expected costs meet the aims.

    That is P(k) exp(-sum_j x_j c_j(k)), normalised, where x minimises a convex function. c is the cost of a candidate
    in units of the aim: the score's gradient at P. For additive scores this is exact; for others the cost of P is what
    the score says of the mean one-hot, and `rounds` re-linearise it. A single budget, or one of sense `at`, is met
    with equality, as in the papers; of several upper limits those that are slack stay so.
    """
    scale = np.asarray(aims)
    sharpness, absent = float(relaxation.sharpness), relaxation.absent.cpu().numpy()
    for _ in range(rounds):
        costs, slopes = zip(*(_linear(relaxation, b) for b in budgets))
        c = np.stack([s.double().cpu().numpy() for s in slopes]) / scale[:, None, None]
        log_p = relaxation.log_p().detach().double().cpu().numpy()
        want = 1.0 - np.asarray(costs) / scale + np.tensordot(c, np.exp(log_p), 2)
        low = np.where(absent, np.inf, c).min(axis=2)
        high = np.where(absent, -np.inf, c).max(axis=2)
        margin = 1e-3 * (high - low).sum(axis=1)  # a linearised score may ask for what P cannot give
        want = np.clip(want, low.sum(axis=1) + margin, high.sum(axis=1) - margin)
        decided = float((log_p.max(axis=1) - np.where(absent, np.inf, log_p).min(axis=1)).max())
        # what is all but decided the other way must be within reach
        steepest = (50.0 + decided) / (sharpness * max(float((high - low).max()), 1e-12))
        bounds = [(-steepest if _equality(budgets, b) else 0.0, steepest) for b in budgets]

        def dual(x: F, c: F = c, want: F = want, log_p: F = log_p) -> tuple[float, F]:
            z = log_p - sharpness * np.tensordot(x, c, 1)
            top = z.max(axis=1, keepdims=True)
            weight = np.exp(z - top)
            norm = weight.sum(axis=1, keepdims=True)
            gradient = want - np.tensordot(c, weight / norm, 2)
            return float((top + np.log(norm)).sum() / sharpness + x @ want), gradient

        x = minimize(
            dual, np.zeros(len(budgets)), jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-14}
        ).x
        tilt = np.where(absent, np.nan, np.tensordot(x, c, 1))
        tilt = np.nan_to_num(tilt - np.nanmean(tilt, axis=1, keepdims=True))  # what all of a row share says nothing
        with torch.no_grad():
            relaxation.logits.sub_(torch.as_tensor(tilt).to(relaxation.logits))
        if np.abs(tilt).max() * sharpness < 1e-3:
            break


def _equality(budgets: Sequence[Budget], budget: Budget) -> bool:
    return len(budgets) == 1 or budget.sense == "at"


def settle(
    relaxation: Relaxation, budgets: Sequence[Budget], aims: Sequence[float], alpha: torch.optim.Optimizer, done: float
) -> list[float]:
    """One update of the logits that keeps the expected costs at the aims; returns the multipliers.

    done: share of the search that has passed, 0 to 1, by which P is sharpened.
    """
    values = balance(relaxation, budgets, aims)
    alpha.step()
    relaxation.sharpness.fill_(SHARPNESS**done)
    hold(relaxation, budgets, aims)
    return values


def spread(relaxation: Relaxation, budgets: Sequence[Budget]) -> Tensor:
    """Scalar: standard deviation of the cost of a network drawn from P, relative to the limit, summed over budgets.

    Exact for additive scores where no slot hangs on another. Where it is 0 every slot with a say in the cost has
    decided, and the argmax costs what the expectation does.
    """
    total = relaxation.logits.new_zeros(())
    p = relaxation.log_p().exp()
    for budget in budgets:
        c = _linear(relaxation, budget)[1] / budget.limit
        mean = (p * c).sum(dim=1, keepdim=True)
        total = total + ((p * (c - mean) ** 2).sum() + 1e-12).sqrt()
    return total


def _linear(relaxation: Relaxation, budget: Budget) -> tuple[float, Tensor]:
    """Cost at P and its gradient (L, K) there, detached; 0 where a candidate does not exist."""
    gates = tuple(p.detach().requires_grad_() for p in relaxation.probabilities())
    cost = soft(budget).soft(gates)
    slope = torch.zeros_like(relaxation.logits)
    for row, gradient in zip(slope, torch.autograd.grad(cost, gates)):
        row[: len(gradient)] = gradient
    return float(cost.detach()), slope


class Multipliers:
    """The published controller: one multiplier per budget, integrating its relative violation (Eq. 4.11).

    rate: step of the ascent; sign_clip: the public code's extra rule 1, which drops a multiplier that pushes away
    from its target; near: set by the method when its costs have come close once, and kept through a resume.
    """

    def __init__(self, budgets: Sequence[Budget], *, rate: float, sign_clip: bool = False) -> None:
        self.budgets = tuple(budgets)
        self.rate, self.sign_clip = rate, sign_clip
        self.values = [0.0] * len(self.budgets)
        self.near = False

    def penalty(self, gates: tuple[Tensor, ...]) -> Tensor:
        """Scalar sum over budgets of lambda (cost / limit - 1), differentiable in the gates."""
        return torch.stack([v * (soft(b).soft(gates) / b.limit - 1.0) for b, v in zip(self.budgets, self.values)]).sum()

    def update(self, arch: Architecture) -> None:
        """Gradient ascent on the violations of an architecture."""
        for i, budget in enumerate(self.budgets):
            violation = float(budget.score([arch])[0]) / budget.limit - 1.0
            value = self.values[i] + self.rate * violation
            if (self.sign_clip and value * violation < 0) or (value < 0 and not _equality(self.budgets, budget)):
                value = 0.0  # of several upper limits a slack one must not push
            self.values[i] = value

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "near": self.near}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.near = [float(v) for v in state["values"]], bool(state["near"])


def costs(relaxation: Relaxation, budgets: Sequence[Budget], multipliers: Sequence[float]) -> dict[str, float]:
    """What every log line says: cost of the argmax, expected cost, gap to the budget, multiplier."""
    argmax, gates, out = relaxation.argmax(), relaxation.probabilities(), {}
    for budget, multiplier in zip(budgets, multipliers):
        name, cost = budget.score.metric.name, float(budget.score([argmax])[0])
        out[name] = cost
        out[f"expected_{name}"] = float(soft(budget).soft(gates).detach())
        out[f"gap_percent_{name}"] = budget.gap_percent(cost)
        out[f"multiplier_{name}"] = multiplier
    return out


def priced(arch: Architecture, scores: Sequence[Score], status: str) -> Landed:
    """An architecture with its costs."""
    return Landed(arch, {score.metric.name: float(score([arch])[0]) for score in scores}, status)


def differentiable(method: str, scores: Sequence[Score]) -> list[SoftScore]:
    """The scores, which a method descends on. Raises UserError for one that cannot be asked about gates."""
    for score in scores:
        if not isinstance(score, SoftScore):
            raise UserError(f"{method} needs a differentiable {score.metric.name} predictor; `sartor fit` makes some.")
    return [score for score in scores if isinstance(score, SoftScore)]


def soft(budget: Budget) -> SoftScore:
    """The budget's score as the differentiable one it is; methods check that before any work."""
    assert isinstance(budget.score, SoftScore)
    return budget.score
