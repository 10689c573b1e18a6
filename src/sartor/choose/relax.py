"""Choosing by gradient: a probability per candidate, sampled paths, and multipliers that hold a budget.

Shapes: logits (L, K) over L slots and the largest number K of candidates; absent entries are -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from sartor.core.score import Budget, SoftScore
from sartor.core.space import Architecture, F, SearchSpace
from sartor.core.task import Path


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

    def argmax(self) -> Architecture:
        """The most probable architecture."""
        return self.space.canonical(tuple(self.log_p().argmax(dim=1).tolist()))

    def log_probabilities(self) -> tuple[F, ...]:
        """Per slot (candidates,) float64, detached: the reward of a landing."""
        return tuple(row.detach().double().cpu().numpy() for row in self._rows(self.log_p()))

    def sample(self, temperature: float, generator: torch.Generator) -> Path:
        """One Gumbel path with straight-through gates (Eq. 4.7 with log P for the printed P, Eq. 4.9)."""
        return self._draw(self.log_p(), temperature, generator)[0]

    def ordered(self, temperature: float, generator: torch.Generator) -> list[Path]:
        """K paths that together take every candidate of every slot once (Algorithm 1 of the thesis).

        Path i is drawn from the candidates not used by paths before it, with fresh noise: the order follows
        Plackett-Luce. A slot with fewer than K candidates starts over when all of its own are used.
        """
        used, paths, log_p = self.absent.clone(), [], self.log_p()
        for _ in range(self.absent.shape[1]):
            used = torch.where(used.all(dim=1, keepdim=True), self.absent, used)
            # softmax over what remains is the re-normalised P without its 0 / 0
            remaining = torch.log_softmax(log_p.masked_fill(used, -torch.inf), dim=1)
            path, chosen = self._draw(remaining, temperature, generator)
            used = used.scatter(1, chosen, True)
            paths.append(path)
        return paths

    def _draw(self, log_p: Tensor, temperature: float, generator: torch.Generator) -> tuple[Path, Tensor]:
        noise = -torch.empty(log_p.shape).exponential_(generator=generator).log()
        soft = torch.softmax((log_p + noise.to(log_p.device)) / temperature, dim=1)
        chosen = soft.argmax(dim=1, keepdim=True)
        # one-hot in value, soft in gradient; the path is routed by the index, never by comparing a gate with 1
        hard = torch.zeros_like(soft).scatter(1, chosen, 1.0) + (soft - soft.detach())
        index = self.space.canonical(tuple(chosen[:, 0].tolist()))
        return Path(index, self._rows(hard)), chosen

    def _rows(self, matrix: Tensor) -> tuple[Tensor, ...]:
        return tuple(row[: len(slot)] for row, slot in zip(matrix, self.space.slots))


def balance(relaxation: Relaxation, budgets: Sequence[Budget]) -> list[float]:
    """Add lambda d(cost / limit) / dlogits to the gradient of the logits, so that the sum does not move the costs.

    That is the gradient of Eq. 4.10 with the multipliers solved for (least squares, as in a stationary point) where
    Eq. 4.11 integrates them. Returns them, in loss per relative violation. Among several budgets a multiplier is
    >= 0: one whose limit does not bind must not push.
    """
    gradient = relaxation.logits.grad
    assert gradient is not None
    probabilities = relaxation.probabilities()
    costs = [soft(b).soft(probabilities) / b.limit for b in budgets]
    slopes = [torch.autograd.grad(c, relaxation.logits, retain_graph=True)[0] for c in costs]
    matrix = torch.stack([s.flatten() for s in slopes], dim=1).double()
    least = torch.linalg.lstsq(
        matrix, -gradient.flatten().double()[:, None], driver="gelsd" if matrix.device.type == "cpu" else None
    )
    values = [float(v) if len(budgets) == 1 else max(float(v), 0.0) for v in least.solution[:, 0]]
    for value, slope in zip(values, slopes):
        gradient += value * slope
    return values


def hold(relaxation: Relaxation, budgets: Sequence[Budget], rounds: int = 4) -> None:
    """Move P to the nearest distribution (in relative entropy) whose expected costs meet the budgets.

    That is P(k) exp(-sum_j x_j c_j(k)), normalised, where x minimises a convex function. c is the cost of a candidate
    in units of the budget's aim, the middle of its interval: the score's gradient at P, exact for an additive score;
    `rounds` re-linearise the others. One budget is met with equality, as in the papers; of several, those that are
    slack stay so.
    """
    aims = np.asarray([sum(b.interval) / 2 for b in budgets])
    sharpness, absent = float(relaxation.sharpness), relaxation.absent.cpu().numpy()
    bounds = [(None, None) if len(budgets) == 1 else (0.0, None)] * len(budgets)
    for _ in range(rounds):
        costs, slopes = zip(*(_linear(relaxation, b) for b in budgets))
        c = np.stack([s.double().cpu().numpy() for s in slopes]) / aims[:, None, None]
        log_p = relaxation.log_p().detach().double().cpu().numpy()
        want = 1.0 - np.asarray(costs) / aims + np.tensordot(c, np.exp(log_p), 2)

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
        tilt = np.where(absent, 0.0, np.tensordot(x, c, 1))
        with torch.no_grad():
            relaxation.logits.sub_(
                torch.as_tensor(tilt, dtype=relaxation.logits.dtype, device=relaxation.logits.device)
            )
        if np.abs(tilt).max() * sharpness < 1e-3:
            break


def spread(relaxation: Relaxation, budgets: Sequence[Budget]) -> Tensor:
    """Scalar: standard deviation of the cost of a network drawn from P, relative to the limit, summed over budgets.

    Exact for additive scores. Where it is 0 every slot with a say in the cost has decided, and the argmax costs what
    the expectation does.
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
    from its target.
    """

    def __init__(self, budgets: Sequence[Budget], *, rate: float, sign_clip: bool = False) -> None:
        self.budgets = tuple(budgets)
        self.rate, self.sign_clip = rate, sign_clip
        self.values = [0.0] * len(self.budgets)

    def penalty(self, gates: tuple[Tensor, ...]) -> Tensor:
        """Scalar sum over budgets of lambda (cost / limit - 1), differentiable in the gates."""
        return torch.stack([v * (soft(b).soft(gates) / b.limit - 1.0) for b, v in zip(self.budgets, self.values)]).sum()

    def update(self, arch: Architecture) -> None:
        """Gradient ascent on the violations of an architecture."""
        for i, budget in enumerate(self.budgets):
            violation = float(budget.score([arch])[0]) / budget.limit - 1.0
            value = self.values[i] + self.rate * violation
            self.values[i] = 0.0 if self.sign_clip and value * violation < 0 else value

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = [float(v) for v in state["values"]]


def soft(budget: Budget) -> SoftScore:
    """The budget's score as the differentiable one it is; methods check that before any work."""
    assert isinstance(budget.score, SoftScore)
    return budget.score
