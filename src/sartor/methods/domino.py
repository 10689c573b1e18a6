"""Domino: which blocks of a network can lose their inner activations, and become one convolution each.

X. Luo et al., "Pearls Hide Behind Linearity", ASP-DAC 2024; thesis chapter 5.

    maximise ACC(alpha)  s.t.  LAT(alpha) <= T, alpha a candidate per block                             Eq. 5.3

    1. latency: networks drawn at random, collapsed, measured; a predictor     5.3.2, fitted before: the budget's score
    2. accuracy on a small task: networks drawn at random, trained              `_graded`
    3. a predictor of accuracy from those, and from few of the whole task       5.3.3, `_accuracy`; `quality.meta`
    4. evolution                                                                5.3.4, `_choose`
    5. the winner is trained, 6. collapsed                                      5.3.5, `sartor compress`; `reparam`

Where we differ:
  1. Partial grafts are candidates, too (`spaces.grafts`): merging a whole block multiplies the cost of wide ones, which
     the predictor of latency, fitted on collapsed networks, knows.
  2. `proxy`. Published: 1,000 networks trained on 10 of 1,000 classes. Here one supernet, in which all candidates of a
     block have the block's weights, begins with those of the model, is trained on random paths, and grades; `tuned`
     trains each network from them instead.
  3. `predictor`. The order of networks is all that a search takes from it: an estimate from the grades of the proxy
     does without trainings on the whole task. `Domino.paper()` has the meta-learned one. Trainings of proxy and targets
     have its epochs, batches, rate and decay; warm-up, clipping and what is decayed are those of all of sartor's.
  4. Spaces of up to 2^18 networks are looked at in full, the published ones of MobileNetV2 and ResNet-50 among them:
     what is found is the best by the predictions. In larger ones evolution begins with the networks graded best.
  5. What does not make a block cheaper, on average over networks drawn at random, is no candidate of it: kept, the
     block can do all that it can, so that only an error of the predictions could choose it.
  6. The supernet, and what is found, begin with the weights of the model where it has any; the thesis trains from
     scratch. Grades are of `valid`: weights that have seen those images lean towards what was left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from operator import ge
from typing import Any

import numpy as np
from torch import nn

from sartor.choose.evolve import Population, Within
from sartor.choose.solve import check_reachable, standing
from sartor.core import Architecture, Budget, F, Found, Json, Metric, Score, SearchSpace, Task, Unreachable, UserError
from sartor.core.restricted import Lifted, Restricted, lifted
from sartor.methods.settings.domino import DominoSettings
from sartor.quality.estimate import LEAST, Estimate
from sartor.quality.meta import MetaAccuracy
from sartor.quality.sampling import QUICK, admissible
from sartor.quality.supernet import Remembered, SupernetScore, train_supernet
from sartor.quality.trained import TrainedScore
from sartor.runs import Run, write_json
from sartor.training.recipe import Recipe
from sartor.training.tasks import guesses, of_classes

logger = logging.getLogger("sartor")
EVERY = 2**18  # networks that are looked at
_AT_ONCE = 2**14
_TOLD = 0.1  # of the variance of grades, below which they are said to tell little
_AROUND = 64  # networks that a candidate is looked at in
_RATES = {"supernet": 0.05, "tuned": 0.01, "scratch": 0.1}


class Domino(DominoSettings):
    """Search for grafts within budgets. Hyper-parameters are the fields; see the module's docstring."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.sensible(len(budgets), 0)

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. objectives: one score of quality instead of what is learnt on the task."""
        self.check(space, budgets)
        check_reachable(space, budgets, bind=False)
        if len(objectives) > 1:
            raise UserError(f"domino maximises one score of quality; {len(objectives)} were given: leave one.")
        graded: dict[Architecture, float] = {}
        accuracy = objectives[0] if objectives else self._accuracy(space, task, run, graded)
        useless = self._useless(space, budgets, run)
        kept = {i: [k for k in range(len(s)) if k not in useless[i]] for i, s in enumerate(space.slots)}
        only = Restricted(space, kept)

        def lift(archs: Sequence[Sequence[int]]) -> list[Architecture]:
            return lifted(space, list(kept.values()), only.canonicals(archs))

        within = [replace(budget, score=Lifted(budget.score, only, lift)) for budget in budgets]
        known = [
            tuple(kept[i].index(k) for i, k in enumerate(arch))
            for arch in sorted(graded, key=lambda a: -graded[a])
            if all(k in kept[i] for i, k in enumerate(arch))
        ]
        chosen, status = self._choose(only, Lifted(accuracy, only, lift), within, run, known)
        (arch,) = lift([chosen])
        winner = standing(arch, budgets, status)
        extras: dict[str, Json] = {
            "quality": accuracy.metric.name,
            "predicted": float(accuracy([arch])[0]),
            "useless": {s.name: [str(s.candidates[k]) for k in useless[i]] for i, s in enumerate(space.slots)},
        }
        return Found(space, "domino", tuple(budgets), winner, winner, extras)

    # ------------------------------------------------------------------ accuracy

    def _accuracy(self, space: SearchSpace, task: Task | None, run: Run, graded: dict[Architecture, float]) -> Score:
        """Steps 2 and 3. graded: takes what the proxy says."""
        if task is None:
            raise UserError("domino grades networks on data; give it a task such as --data digits.")
        small = task if self.classes is None else of_classes(task, self._labels(task, run))
        proxy = run.stage("proxy")
        quality = Remembered(self._graded(space, small, run), proxy)
        archs = list(dict.fromkeys(space.sample(run.rng("networks"), self.networks)))
        grades = quality(archs)
        graded |= {arch: float(grade) for arch, grade in zip(archs, grades) if np.isfinite(grade)}
        if not graded:
            raise UserError("no network could be graded, all trainings diverged; lower lr.")
        for _ in proxy.steps(1):
            proxy.log("graded", networks=len(graded), highest=max(graded.values()), lowest=min(graded.values()))
        if guesses(max(graded.values()), small, "valid"):
            logger.warning("even the best grade, %.1f %%, is that of guessing: give more epochs", max(graded.values()))
        if self.predictor == "estimate" and len(archs) < LEAST:
            return quality  # of a space of so few networks all are graded
        if self.predictor == "estimate":
            score = Estimate(space, archs, grades, metric=quality.metric, members=QUICK)
            if score.explained < _TOLD:
                logger.warning(
                    "grades tell little about blocks (%.0f %% of their variance is predicted of networks that were "
                    "left out): what is chosen is close to chance; give more networks, or more epochs",
                    100 * max(score.explained, 0.0),
                )
            answers, predicted = score.out_of_fold()
            points = {"measured": answers.tolist(), "predicted": {"estimate": predicted.tolist()}}
            write_json(run.path / "answers.json", {"metric": quality.metric.name, "points": points})
            return score
        few, whole = archs, grades
        if self.targets:
            few = archs[: self.targets]
            whole = Remembered(self._trained(space, task, self.target_epochs, run), run.stage("target"))(few)
        seed = run.torch_seed("predictor") % 2**32
        return MetaAccuracy(space, (archs, grades), (few, whole), how=self.predictor, metric=quality.metric, seed=seed)

    def _graded(self, space: SearchSpace, task: Task, run: Run) -> Score:
        """Who grades networks by the proxy."""
        if self.proxy != "supernet":
            return self._trained(space, task, self.epochs, run)
        supernet = train_supernet(
            space,
            task,
            run.stage("supernet"),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or _RATES["supernet"],
        )
        return SupernetScore(space, supernet, task)

    def _trained(self, space: SearchSpace, task: Task, epochs: int, run: Run) -> Score:
        """Each trained by itself, from the weights of the model unless the proxy is `scratch` or it has none."""
        begun = self.proxy != "scratch" and getattr(space, "trained", False)
        how = "tuned" if begun else "scratch"
        recipe = Recipe(
            epochs=epochs,
            batch_size=self.batch_size,
            lr=(self.lr if how == self.proxy else None) or _RATES[how],
            weight_decay=self.weight_decay,
        )
        start: Callable[[Architecture], nn.Module] | None = getattr(space, "tuned", None) if begun else None
        return TrainedScore(space, task, recipe, start=start, seed=run.torch_seed("trainings") % 2**32)

    def _labels(self, task: Any, run: Run) -> list[int]:
        return [int(label) for label in run.rng("classes").choice(task.classes, self.classes, replace=False)]

    # ------------------------------------------------------------------ choosing

    @staticmethod
    def _useless(space: SearchSpace, budgets: Sequence[Budget], run: Run) -> list[list[int]]:
        """Per slot the candidates that lower no cost against the network as it was; of other spaces none."""
        useless: list[list[int]] = [[] for _ in space.slots]
        as_it_was = getattr(space, "unchanged", None)
        if as_it_was is None:
            return useless
        around = space.sample(run.rng("useless"), _AROUND)
        for i, slot in enumerate(space.slots):
            archs = [[(*arch[:i], k, *arch[i + 1 :]) for arch in around] for k in range(len(slot))]
            costs = [[float(np.mean(budget.score(some))) for budget in budgets] for some in archs]
            kept = costs[as_it_was[i]]
            useless[i] = [k for k in range(len(slot)) if k != as_it_was[i] and all(map(ge, costs[k], kept))]
        return useless

    def _choose(
        self, space: SearchSpace, accuracy: Score, budgets: Sequence[Budget], run: Run, known: list[Architecture]
    ) -> tuple[Architecture, str]:
        """Step 4: the best within the budgets by the predictions, and whether that is proven. known: begun with."""
        if space.size <= EVERY:
            every = space.enumerate()
            chunks = iter(lambda: list(islice(every, _AT_ONCE)), [])
            archs = [arch for chunk in chunks for arch in admissible(chunk, budgets)]
            if not archs:
                return self._nearest(space, budgets, space.enumerate())
            values = np.concatenate([accuracy(archs[i : i + _AT_ONCE]) for i in range(0, len(archs), _AT_ONCE)])
            self._front(archs, values, accuracy.metric, budgets, run)
            best = np.nanargmax if accuracy.metric.better == "more" else np.nanargmin
            return archs[int(best(values))], "optimal"
        population = Population(
            space,
            better=accuracy.metric.better,
            population=self.population,
            keep=self.keep,
            gene_rate=self.gene_rate,
            within=Within(space, budgets),
            start=known,
            seed=run.torch_seed("evolution") % 2**32,
        )
        evolution, said = run.stage("evolution"), -np.inf
        for step in evolution.steps(self.iterations, population=population):
            new = population.ask()
            population.tell(new, accuracy(new))
            if not population.best():
                return self._nearest(space, budgets, space.sample(run.rng("near"), _AROUND))
            best_value = population.told[population.best()[0]]
            if best_value != said or step + 1 == self.iterations:  # generations by a predictor take a moment
                evolution.log("generation", generation=step, best=best_value, asked=len(population.told))
            said = best_value
        archs = list(population.told)
        told = np.array([population.told[arch] for arch in archs])
        self._front(archs, told, accuracy.metric, budgets, run)
        return population.best()[0], "verified"

    @staticmethod
    def _nearest(
        space: SearchSpace, budgets: Sequence[Budget], archs: Iterable[Architecture]
    ) -> tuple[Architecture, str]:
        """The network that comes nearest to landing. Raises Unreachable where there are only upper limits."""
        if all(budget.sense == "at_most" for budget in budgets):
            raise Unreachable(f"no network is within {' and '.join(map(str, budgets))} together; raise a limit.")
        archs = list(archs)
        return archs[int(np.argmin(Within(space, budgets).distance(archs)))], "none_found"

    @staticmethod
    def _front(archs: Sequence[Architecture], values: F, metric: Metric, budgets: Sequence[Budget], run: Run) -> None:
        """What the page shows: networks that none beats in both the first cost and what is predicted, as accuracy."""
        score, best = budgets[0].score, -np.inf
        good = values if metric.better == "more" else -values
        costs, front = score(archs), []
        for i in np.lexsort((-good, costs)):
            if good[i] > best:
                best = good[i]
                front.append({"architecture": list(archs[i]), "cost": float(costs[i]), "quality": float(values[i])})
        written = {"cost": score.metric.name, "quality": metric.name, "by": "predicted from the grades of the proxy"}
        write_json(run.path / "front.json", {**written, "front": front})
