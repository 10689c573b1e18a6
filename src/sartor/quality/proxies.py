"""Proxies: what a network and a little data tell of the accuracy that it would be trained to.

One interface, `Proxy`: a network as it was initialised and fixed data in, a number out, higher is better. Those that
need no training, each with its source, and those of the first epochs (`quality.early`); `ProxyScore` asks one about the
networks of a space. M. Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, compares most of them.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import METRICS, Architecture, Batch, F, Score, SearchSpace, Task
from sartor.core.errors import unknown
from sartor.quality import early
from sartor.quality.estimate import NormalScores

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.LeakyReLU)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Material:
    """What a proxy may look at. batches: those of an epoch, always the same; loss: of a network on a batch."""

    batches: Callable[[], Iterable[Batch]]
    loss: Callable[[nn.Module, Batch], Tensor]

    @property
    def first(self) -> Batch:
        """The first batch."""
        return next(iter(self.batches()))


class Proxy(Protocol):
    """A number for a freshly initialised network, which it may change; higher is better, NaN where there is none."""

    def __call__(self, network: nn.Module, material: Material) -> float: ...


def grad_norm(network: nn.Module, material: Material) -> float:
    """Sum over layers of the norm of the loss's gradient."""
    return math.fsum(float(g.norm()) for _, g in _gradients(network, material))


def snip(network: nn.Module, material: Material) -> float:
    """Sum of |weight x gradient|: N. Lee et al., "SNIP", ICLR 2019."""
    return math.fsum(float((w * g).abs().sum()) for w, g in _gradients(network, material))


def synflow(network: nn.Module, material: Material) -> float:
    """Sum of weight x gradient of the output with |weights| and an input of ones: H. Tanaka et al., NeurIPS 2020.

    In double precision: what passes through many layers is large. Norms of a fresh network in evaluation mode do
    nothing, as the source asks. Its theory is of activations that keep scale: ReLU6, which saturates and would let the
    gradient of the classifier alone through, is a ReLU here; smooth ones are outside of it.
    """
    inputs, _ = material.first
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    ones = [torch.ones_like(x[:1], dtype=torch.float64) if x.is_floating_point() else x[:1] for x in inputs]
    weights = _weights(network)
    gradients = torch.autograd.grad(network(*ones).sum(), weights, allow_unused=True)
    return math.fsum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients) if g is not None)


def jacob_cov(network: nn.Module, material: Material) -> float:
    """How differently the output reacts to different images: J. Mellor et al., "NAS without training", first version.

    Minus the sum over eigenvalues v of the correlations of the input gradients of log(v + k) + 1 / (v + k), k = 1e-5.
    NaN where inputs are no numbers to be changed a little, as tokens.
    """
    (x, *rest), _ = material.first
    if not x.is_floating_point():
        return math.nan
    x = x.detach().clone().requires_grad_()
    network.train()
    network(x, *rest).sum().backward()
    assert x.grad is not None
    rows = x.grad.flatten(1).double().cpu().numpy()
    with np.errstate(invalid="ignore"):
        correlations = np.corrcoef(rows)
    if not np.isfinite(correlations).all():
        return math.nan
    values = np.linalg.eigvalsh(correlations) + 1e-5
    return -float((np.log(np.maximum(values, 1e-12)) + 1 / np.maximum(values, 1e-12)).sum())


def naswot(network: nn.Module, material: Material) -> float:
    """log |K|, where K counts the rectifiers on which two images agree: J. Mellor et al., ICML 2021.

    Rectifiers that are modules; NaN where there are none.
    """
    inputs, _ = material.first
    count = len(inputs[0])
    agree = torch.zeros(count, count, dtype=torch.float64, device=inputs[0].device)

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) == count:
            on = (given[0] > 0).flatten(1).double()
            agree.add_(on @ on.T + (1 - on) @ (1 - on).T)

    network.train()
    with _looking(network, _RECTIFIERS, look), torch.no_grad():
        network(*inputs)
    sign, value = np.linalg.slogdet(agree.cpu().numpy())
    return float(value) if sign > 0 else math.nan


def zen(network: nn.Module, material: Material, repeats: int = 16, step: float = 0.01) -> float:
    """Zen score: M. Lin et al., "Zen-NAS", ICCV 2021, algorithm 1, with the sum of magnitudes of the authors' code.

    log of how much the last feature map moves when a Gaussian image does by `step` of another, weights Gaussian, and
    the sum of the log deviations that batch norms divide by. Shortcuts stay, which the source takes out.
    """
    (x, *rest), _ = material.first
    pools = [module for module in network.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    if rest or x.dim() != 4 or not pools:
        return math.nan
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    last: list[Tensor] = []
    spread: list[float] = []

    def features(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        last[:] = [given[0]]

    def deviation(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        spread.append(float(given[0].var(dim=(0, 2, 3), unbiased=False).mean().sqrt().log()))

    moved, told = [], []
    with (
        torch.no_grad(),
        _looking(network, (nn.AdaptiveAvgPool2d,), features),
        _looking(network, (nn.BatchNorm2d,), deviation),
    ):
        for _ in range(repeats):
            start, other = torch.randn_like(x), torch.randn_like(x)
            network(start)
            told.append(math.fsum(spread))
            before = last[0].clone()
            network(start + step * other)
            moved.append(float((last[0] - before).flatten(1).abs().sum(dim=1).mean()))
            spread.clear()
    movement = float(np.mean(moved))
    return math.log(movement) + float(np.mean(told)) if movement > 0 else math.nan


@dataclass(frozen=True)
class Learned:
    """The proxy that trains for a while and makes a number of the losses.

    tells: that number; bounded: it is a clipped BTE, so that what it can still become is known while it is trained.
    """

    tells: Callable[[F], float]
    schedule: early.Schedule
    bounded: bool = False

    def __call__(self, network: nn.Module, material: Material, floor: float = -math.inf) -> float:
        """floor: a bounded one that cannot reach it is left, and answers what it could have become at most."""
        hopeless = (lambda losses: early.most(losses) < floor) if self.bounded and floor > -math.inf else None
        losses = early.early_losses(
            network, material.loss, lambda epoch: material.batches(), self.schedule, hopeless=hopeless
        )
        trained = losses[np.isfinite(losses).any(axis=1)]
        if hopeless is not None and len(trained) > 1 and hopeless(trained):
            return early.most(trained)
        return self.tells(losses)


@dataclass(frozen=True)
class Vote:
    """Several proxies at once: the sum of their normal scores among networks of the space, which `ProxyScore` draws.

    Members tell of different things: that images are told apart, and that much of a network is reached.
    """

    members: tuple[str, ...]
    drawn: int = 64

    def __call__(self) -> Vote:
        return self


def _learned(tells: Callable[[F], float], bounded: bool = False) -> Callable[..., Proxy]:
    return lambda **schedule: Learned(tells, early.Schedule(**schedule), bounded)


def _untrained(proxy: Proxy) -> Callable[..., Proxy]:
    return lambda: proxy


PROXIES: dict[str, Callable[..., Proxy | Vote]] = {
    "bte": _learned(early.bte),
    "bte-clipped": _learned(partial(early.bte, mode="clipped"), bounded=True),
    "tse": _learned(early.tse),
    "tse-e": _learned(partial(early.tse, last=1)),
    "tse-ema": _learned(early.tse_ema),
    "synflow": _untrained(synflow),
    "snip": _untrained(snip),
    "grad-norm": _untrained(grad_norm),
    "jacob-cov": _untrained(jacob_cov),
    "naswot": _untrained(naswot),
    "zen": _untrained(zen),
    "vote": Vote(("jacob-cov", "synflow")),
}
"""What makes each, by name; those that train take the fields of `early.Schedule`."""


class Floored(Score):
    """A score that need not be exact below `floor`: what cannot reach it may be answered by a bound below it."""

    floor: float = -math.inf


class ProxyScore(Floored):
    """What a proxy says of networks of a space, each freshly initialised.

    proxy: a name of `PROXIES`, with `options`, or any `Proxy` or `Vote`; batch_size and limit: of the batches of
    `train` that it sees, neither shuffled nor augmented, a ragged last one left out, and nothing is dropped out: losses
    and images are compared with each other; seeds: initialisations that it is averaged over, the same ones for every
    network. `seconds` holds what each answer took, wall-clock. `floor` counts with one seed; `Learned` says how.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        proxy: str | Proxy | Vote,
        *,
        batch_size: int = 64,
        limit: int | None = None,
        seeds: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if isinstance(proxy, str):
            if proxy not in PROXIES:
                raise unknown("proxy", proxy, PROXIES)
            proxy = PROXIES[proxy](**options)
        self.space, self.task, self.metric = space, task, METRICS["proxy"]
        if isinstance(proxy, Vote):
            same: dict[str, Any] = {"batch_size": batch_size, "limit": limit, "seeds": seeds, "seed": seed}
            self.members = [ProxyScore(space, task, name, **same) for name in proxy.members]
            self.drawn = proxy.drawn
        else:
            self.members, self.proxy = [], proxy
        self.seeds, self.seed, self.seconds = seeds, seed, dict[Architecture, float]()
        size = min(batch_size, task.length("train"))
        whole = task.length("train") // size  # a ragged last batch would weigh as much as a full one
        count = whole if limit is None else min(limit, whole)
        self.material = Material(
            lambda: task.batches("train", size=size, seed=0, epoch=0, limit=count, plain=True), task.loss
        )

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return np.array([self._one(self.space.canonical(arch)) for arch in archs], dtype=np.float64)

    @cached_property
    def _standings(self) -> list[NormalScores]:
        """Of each member among networks that are drawn."""
        drawn = self.space.sample(np.random.default_rng(self.seed), self.drawn)
        values = (member(drawn) for member in self.members)
        return [NormalScores(known[np.isfinite(known)]) for known in values]

    def _one(self, arch: Architecture) -> float:
        began, told = time.perf_counter(), []
        if self.members:
            told = [sum(float(at(member([arch]))[0]) for member, at in zip(self.members, self._standings))]
        for i in range(0 if self.members else self.seeds):
            torch.manual_seed(self.seed + i)
            network = self.space.network(arch).to(self.task.device)
            for module in network.modules():
                if isinstance(module, _DROPOUTS):
                    module.p = 0.0
            if self.seeds == 1 and isinstance(self.proxy, Learned):
                told.append(self.proxy(network, self.material, self.floor))
            else:
                told.append(self.proxy(network, self.material))
        self.seconds[arch] = time.perf_counter() - began
        return float(np.mean(told))


class Processes(Floored):
    """A score that is asked in several processes, an architecture at a time; a context manager that ends them.

    make: gives the score in each of them, and can be pickled, as `partial(ProxyScore, space, task, "bte")` can;
    workers: how many, each with one thread. `floor` is handed on with every question.
    """

    def __init__(self, make: Callable[[], ProxyScore], workers: int) -> None:
        one = make()
        self.space, self.metric, self.seconds = one.space, one.metric, one.seconds
        spawn = multiprocessing.get_context("spawn")  # forked threads of torch hang
        self._pool = ProcessPoolExecutor(workers, spawn, _begin, (make,))

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        known = [self.space.canonical(arch) for arch in archs]
        answers = list(self._pool.map(_answer, known, repeat(self.floor)))
        self.seconds |= {arch: seconds for arch, (_, seconds) in zip(known, answers)}
        return np.array([value for value, _ in answers], dtype=np.float64)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_mine: list[ProxyScore] = []  # of a worker


def _begin(make: Callable[[], ProxyScore]) -> None:
    torch.set_num_threads(1)
    _mine[:] = [make()]


def _answer(arch: Architecture, floor: float) -> tuple[float, float]:
    (score,) = _mine
    score.floor = floor
    (value,) = score([arch])
    return float(value), score.seconds[arch]


# ---------------------------------------------------------------------- pieces


def _weights(network: nn.Module) -> list[Tensor]:
    return [module.weight for module in network.modules() if isinstance(module, _CONVOLUTIONS)]


def _gradients(network: nn.Module, material: Material) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights of convolutions and linear layers, and the gradients of the loss of the first batch."""
    network.train()
    weights = _weights(network)
    gradients = torch.autograd.grad(material.loss(network, material.first), weights, allow_unused=True)
    return ((w.detach(), g) for w, g in zip(weights, gradients) if g is not None)


@contextmanager
def _looking(network: nn.Module, kinds: tuple[type[nn.Module], ...], look: Callable[..., None]) -> Iterator[None]:
    """Call `look` with what goes into every module of these kinds."""
    handles = [module.register_forward_pre_hook(look) for module in network.modules() if isinstance(module, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
