"""Quality of every network from the few that were asked about, with its uncertainty.

What block tables (`blocks`) leave out: that choices interact, that accuracies crowd at the top, that one answer is
noisy. Here the target is the normal score of the rank (B. L. van der Waerden, 1952), so that a failed network does not
outweigh all others; several predictors learn it, each on all folds but one; and non-negative least squares on what they
say of the fold they did not see weighs them (stacking; L. Breiman, Machine Learning 24, 1996), which shrinks what does
not help to 0. The machines of all folds stay and their mean is the estimate, so that nothing is fitted twice.

Only the sample decides anything. Spaces that can be enumerated are searched by the estimate itself; larger ones, where
an integer program chooses (`choose.exact`), by its `polynomial`, ridge with pairwise products of choices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sartor.core import F, Metric, Score, SearchSpace, Terms, UserError
from sartor.core.progress import progress
from sartor.predictors import PREDICTORS, Predictor
from sartor.predictors.evaluate import splits

MEMBERS = ("ridge", "pairs", "svm", "gp", "gnn-plain")
LEAST = 4  # answers
_FOLDS = 5
_FEW = 40  # answers; below, ridge alone


class NormalScores:
    """Values to quantiles of the normal distribution by rank among `reference` (n,), and back; monotone.

    Equal values share the middle of their ranks; between values it is linear, and beyond them as steep as their outer
    tenth.
    """

    def __init__(self, reference: F) -> None:
        from scipy.special import ndtri

        ordered = np.sort(reference)
        self._x = np.unique(ordered)
        rank = np.searchsorted(ordered, self._x, "left") + np.searchsorted(ordered, self._x, "right")
        self._z = np.asarray(ndtri(rank / (2.0 * len(ordered))))
        far = max(1, len(self._x) // 10)
        ends = [(0, min(far, len(self._x) - 1)), (max(-1 - far, -len(self._x)), -1)]
        self._slopes = [
            (self._z[b] - self._z[a]) / (self._x[b] - self._x[a]) if len(self._x) > 1 else 1.0 for a, b in ends
        ]

    def __call__(self, values: F) -> F:
        return _extended(values, self._x, self._z, self._slopes)

    def back(self, scores: F) -> F:
        """The values that have these scores."""
        return _extended(scores, self._z, self._x, [1.0 / slope for slope in self._slopes])


def _extended(at: F, x: F, y: F, slopes: Sequence[float]) -> F:
    low, high = np.minimum(at - x[0], 0.0), np.maximum(at - x[-1], 0.0)
    return np.asarray(np.interp(at, x, y) + slopes[0] * low + slopes[1] * high, dtype=np.float64)


class Estimate(Score):
    """A score estimated from answers about some architectures.

    archs, values (n,): what is known, NaN is left out; uniform: how many of these, from the first, were drawn uniformly
    (ranks are among them; default all); members: predictors by name. Of fewer than 40 answers only ridge learns.

    weights: of the members; explained: share of the variance of normal scores that is predicted out of fold. Raises
    UserError for fewer than four numbers.
    """

    def __init__(
        self,
        space: SearchSpace,
        archs: Sequence[Sequence[int]],
        values: F,
        *,
        metric: Metric,
        uniform: int | None = None,
        members: Sequence[str] = MEMBERS,
        seed: int = 0,
    ) -> None:
        from scipy.optimize import nnls

        whole = np.isfinite(values)
        if whole.sum() < LEAST:
            raise UserError(f"{int(whole.sum())} answers are too few to estimate from; ask about {LEAST} or more.")
        self.space, self.metric = space, metric
        self.archs = space.canonicals([arch for arch, ok in zip(archs, whole) if ok])
        self.sign = 1.0 if metric.better == "more" else -1.0
        good = self.sign * values[whole]
        self._ranks = NormalScores(good[: int(whole[:uniform].sum()) or None])
        self._z = self._ranks(good)
        names = list(members) if len(good) >= _FEW else ["ridge"]
        self._folds: list[list[Predictor]] = []
        unseen = np.zeros((len(good), len(names)))
        folds = list(splits(len(good), min(_FOLDS, len(good) // 2), None, seed))
        for fit, held in progress(folds, "estimate", len(folds)):
            made = [self._fit(name, fit.tolist()) for name in names]
            self._folds.append(made)
            unseen[held] = self._say(made, [self.archs[i] for i in held])
        share, _ = nnls(unseen, self._z)
        self.weights = dict(zip(names, map(float, share)))
        heard = np.flatnonzero(share > 0) if share.any() else np.arange(len(names))  # others need not be asked
        self._folds = [[made[i] for i in heard] for made in self._folds]
        unseen, self._weights = unseen[:, heard], share[heard]
        mean = unseen @ self._weights
        self._unseen = mean
        squares = (self._z - mean) ** 2
        self.explained = 1.0 - float(squares.mean() / max(self._z.var(), 1e-12))
        self._spread, _ = nnls(np.column_stack([np.ones(len(good)), self._apart(unseen)]), squares)

    def _fit(self, name: str, rows: Sequence[int]) -> Predictor:
        return PREDICTORS.make(name).fit(self.space, [self.archs[i] for i in rows], self._z[rows], metric=self.metric)

    def _say(self, made: Sequence[Predictor], archs: Sequence[Sequence[int]]) -> F:
        """(n, members) of canonical architectures."""
        return np.column_stack([machine.trusting(archs) for machine in made])

    def _apart(self, said: F) -> F:
        """(n,) weighed variance of the members."""
        share = self._weights / max(self._weights.sum(), 1e-12)
        apart: F = (said - (said @ share)[:, None]) ** 2 @ share
        return apart

    # ------------------------------------------------------------------ asking

    def normal(self, archs: Sequence[Sequence[int]]) -> tuple[F, F]:
        """(n,) normal scores, more is better, and their standard deviations.

        Deviations are of an answer about the network, noise included: const + how far the members are apart, both
        weighed by what they explain of the errors out of fold.
        """
        known = self.space.canonicals(archs)
        said: F = np.mean([self._say(made, known) for made in self._folds], axis=0)
        deviation = np.sqrt(self._spread[0] + self._spread[1] * self._apart(said))
        return np.asarray(said @ self._weights), deviation

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        return self.sign * self._ranks.back(self.normal(archs)[0])

    def interval(self, archs: Sequence[Sequence[int]], share: float = 0.9) -> tuple[F, F]:
        """(n,) lowest and highest answer to be expected of a `share` of networks, in the metric's unit."""
        from scipy.special import ndtri

        mean, deviation = self.normal(archs)
        reach = float(ndtri(0.5 + share / 2.0)) * deviation
        ends = [self.sign * self._ranks.back(mean + side * reach) for side in (-1.0, 1.0)]
        return np.minimum(*ends), np.maximum(*ends)

    def polynomial(self) -> Terms:
        """Normal scores as terms, more is better: ridge with pairwise products, of all answers.

        Where those lean on what is executed, which no two choices tell, ridge alone.
        """
        rows = list(range(len(self.archs)))
        terms = self._fit("pairs", rows).terms() if len(rows) >= _FEW else None
        terms = terms or self._fit("ridge", rows).terms()
        assert terms is not None
        return terms

    def out_of_fold(self) -> tuple[F, F]:
        """The answers (n,), and what was predicted of each by those that had not seen it, in the metric's unit."""
        return self.sign * self._ranks.back(self._z), self.sign * self._ranks.back(self._unseen)
