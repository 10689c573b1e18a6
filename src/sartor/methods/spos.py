"""SPOS: a supernet trained on one uniformly drawn path a step, then evolution by what it says of networks.

Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020; ALGORITHMS 2.1.

    W = argmin E_{a ~ U} [ L_train(N(a, W(a))) ]             Eq. 7    `trained`, `quality.supernet.train_supernet`
    a = argmax ACC_val(N(a, W(a)))  s.t.  cost(a) <= limit   Eq. 4, 5 Algorithm 1, `search`

    Algorithm 1, line  1        the first networks, random within the limits        Population._first
                 lines 2 - 11   iterations                                          run.steps
                 line  3        grade each: norms are calibrated on training data   SupernetScore
                 line  4        the best of all so far                              Population.best
                 lines 5 - 10   crossover, mutation; the code fills up at random    Population._next
                 line  12       the best

The plain method of one supernet, and what Supernet Shifting is compared with.

Where we differ:
  1. A generation is what stays (`keep`) and its children, so that the first has as many random networks as later ones
     have both; the code has 50 children beside the 10 best.
  2. Norms of a network are calibrated by a plain mean over a few large batches; the code forwards 200 of 128 images
     with a momentum of 0.1, of which the last twenty count.
  3. `sampling`. The paper says uniform; the code, and `SPOS.paper()`, draw evenly over ranges of multiply-accumulates.
  4. Costs as objectives beside the quality make it a search for a front by NSGA-II, as the appendix of Supernet
     Shifting has it; of the front the network of the best quality is the winner. Limits may be of any score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np

from sartor.choose.evolve import Population, Within
from sartor.choose.pareto import NSGA2, front
from sartor.choose.solve import check_reachable, some_within, standing
from sartor.core import Architecture, Budget, F, Found, Json, Metric, Score, SearchSpace, Task, Unreachable, UserError
from sartor.core.units import QUALITIES
from sartor.methods.settings.spos import SPOSSettings
from sartor.quality.saved import FILE
from sartor.quality.supernet import Draw, Remembered, SupernetScore, stratified, train_supernet, uniform
from sartor.quality.transfer import save
from sartor.runs import Run, Stateful, write_json
from sartor.spaces.complexity import Complexity
from sartor.training.optimise import images_per_epoch
from sartor.training.tasks import smoothed


class Grader(Protocol):
    """Who says how good networks are, one visit after another."""

    metric: Metric
    by: str
    """Whose word it is, for the page."""

    @property
    def state(self) -> Mapping[str, Stateful]:
        """What visits change."""
        ...

    def visit(self, arch: Architecture, visit: int, members: int, last: bool) -> float:
        """The quality of a network, by the visit-th visit of a search.

        members: how many the generation asks about, of which it may be the last.
        """
        ...

    def final(self, archs: Sequence[Architecture]) -> F:
        """(n,) qualities that count in the end."""
        ...

    def images(self) -> dict[str, Json]:
        """How many were trained on."""
        ...


class Still:
    """A score that no visit changes."""

    state: Mapping[str, Stateful] = {}

    def __init__(self, score: Score, trained_on: int, by: str) -> None:
        self.score, self.metric, self.trained_on, self.by = score, score.metric, trained_on, by

    def visit(self, arch: Architecture, visit: int, members: int, last: bool) -> float:
        return float(self.score([arch])[0])

    def final(self, archs: Sequence[Architecture]) -> F:
        return self.score(archs)

    def images(self) -> dict[str, Json]:
        return {"supernet": self.trained_on}


class SPOS(SPOSSettings):
    """Evolution within budgets by a supernet. Hyper-parameters are the fields; see the module's docstring."""

    key: ClassVar[str] = "spos"

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.sensible(len(budgets), 1)  # what objectives change is checked where they are known

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. objectives: costs that a front is wanted of, and one score of quality instead of a supernet."""
        self.check(space, budgets)
        check_reachable(space, budgets, bind=False)
        costs = [score for score in objectives if score.metric.name not in QUALITIES]
        self.sensible(len(budgets), len(costs))
        given = [score for score in objectives if score not in costs]
        quality = given[0].metric if given else self.smoothed(task).metric
        make = partial(self._population, space, quality, costs, budgets, run)
        population = make(())
        if not population.ask():  # nothing that is drawn or repaired keeps the limits
            landed = some_within(space, budgets, run.rng("landing"))
            population = make([landed.architecture])
            if not population.ask():
                if all(budget.sense == "at_most" for budget in budgets):
                    raise Unreachable(
                        f"no network is within {' and '.join(map(str, budgets))} together; raise a limit."
                    )
                return Found(space, self.key, tuple(budgets), landed, landed)
        grader = self.grader(space, given, run, task)
        paid: dict[Architecture, F] = {}
        for visit in run.steps(self._visits(bool(costs)), population=population, **grader.state):
            if population.done and population.generation == self.iterations:
                continue  # limits, or a small space, made generations smaller
            asked = population.ask()
            if not asked:  # every network within the limits is known
                continue
            if costs and asked[0] not in paid:  # of all at once, so that those measured are interleaved
                paid = dict(zip(asked, np.column_stack([score(asked) for score in costs])))
            last = len(asked) == 1
            value = grader.visit(asked[0], visit, population.asks, last)
            population.tell(asked[:1], np.array([[value, *paid[asked[0]]]] if costs else [value]))
            if last:
                self._log(population, quality, budgets, run)
        return self._found(space, population, grader, costs, budgets, run)

    # ------------------------------------------------------------------ quality

    def grader(self, space: SearchSpace, given: Sequence[Score], run: Run, task: Task | None) -> Grader:
        """The score given, or a supernet, trained unless the run has it."""
        if len(given) > 1:
            raise UserError(f"spos maximises one score of quality; {len(given)} were given: leave one.")
        if given:
            return Still(Remembered(given[0], run), 0, "what the oracle says")
        supernet, task = self.trained(space, task, run)
        images = self.epochs * images_per_epoch(task, "train", self.batch_size)
        return Still(Remembered(self.graded_by(supernet, space, task), run), images, "what the supernet says")

    def trained(self, space: SearchSpace, task: Task | None, run: Run) -> tuple[Any, Task]:
        """Eq. 7: a supernet, and the task that it is trained on."""
        task = self.smoothed(task)
        supernet = train_supernet(
            space,
            task,
            run.stage("supernet"),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule="linear",
            clip_norm=None,
            draw=self.draw(space),
        )
        if not (run.path / FILE).exists():
            save(supernet, run.path / FILE, task)
        return supernet, task

    def smoothed(self, task: Task | None) -> Task:
        """The task that a supernet is trained on."""
        if task is None:
            raise UserError(f"{self.key} trains a supernet on data; give it a task such as --data digits.")
        return task if self.label_smoothing is None else smoothed(task, self.label_smoothing)

    def draw(self, space: SearchSpace) -> Draw:
        """Paths of the supernet's training."""
        return stratified(space, Complexity(space, "macs")) if self.sampling == "macs" else uniform(space)

    def graded_by(self, supernet: Any, space: SearchSpace, task: Task) -> SupernetScore:
        """Networks as they stand in a supernet."""
        return SupernetScore(space, supernet, task, calibration=self.calibration, limit=self.valid_batches)

    # ------------------------------------------------------------------ evolution

    def _population(
        self,
        space: SearchSpace,
        quality: Metric,
        costs: Sequence[Score],
        budgets: Sequence[Budget],
        run: Run,
        start: Sequence[Architecture],
    ) -> Population:
        options: dict[str, Any] = {
            "start": start,
            "gene_rate": self.gene_rate,
            "within": Within(space, budgets),
            "again": self.again,
            "seed": run.torch_seed("evolution") % 2**32,
        }
        if costs:
            better = [quality.better, *(score.metric.better for score in costs)]
            return NSGA2(space, better=better, population=self.population // 2, **options)
        return Population(space, better=quality.better, population=self.population, keep=self.keep, **options)

    @property
    def again(self) -> bool:
        """Whether those that stay are visited in every generation."""
        return False

    def _visits(self, several: bool) -> int:
        """Of all generations, each of its full size."""
        stay = self.population // 2 if several else self.keep
        first = 2 * stay if several else self.population
        return first + (self.iterations - 1) * (first if self.again else first - stay)

    @staticmethod
    def _log(population: Population, quality: Metric, budgets: Sequence[Budget], run: Run) -> None:
        known = [arch for arch in population.members if np.isfinite(population.told[arch])]
        if known:
            best = (max if quality.better == "more" else min)(known, key=lambda arch: population.told[arch])
            run.log(
                "generation",
                generation=population.generation - 1,
                best=population.told[best],
                median=float(np.median([population.told[arch] for arch in known])),
                asked=len(population.told),
                scores=[population.told[arch] for arch in known],
                **{f"gap {b.score.metric.name} (%)": b.gap_percent(float(b.score([best])[0])) for b in budgets},
            )

    # ------------------------------------------------------------------ what was found

    def _found(
        self,
        space: SearchSpace,
        population: Population,
        grader: Grader,
        costs: Sequence[Score],
        budgets: Sequence[Budget],
        run: Run,
    ) -> Found:
        """Line 12: the best of those that stayed or, of several objectives, the best of the front."""
        if not isinstance(population, NSGA2):
            archs = population.best()[: self.keep]
        else:  # what was said before a grader moved does not count
            archs = population.best() if grader.state else population.front()
        if not archs:
            raise UserError("every network that was graded failed; mend what grades them, or lower lr.")
        values = grader.final(archs)
        errors = values if grader.metric.better == "less" else -values
        paid = [score(archs) for score in costs]
        kept = front(np.column_stack([errors, *paid])) if costs else np.arange(len(archs))
        chosen = kept[int(np.nanargmin(errors[kept]))]  # of the front: none as good is cheaper
        best = archs[chosen]
        extras: dict[str, Json] = {
            "quality": grader.metric.name,
            "score": float(values[chosen]),
            "graded": len(population.told),
            "images": grader.images(),
        }
        if costs:
            extras["front"] = self._front([archs[i] for i in kept], values[kept], grader, costs, run)
        winner = standing(best, budgets, "verified")
        said = {score.metric.name: float(score([best])[0]) for score in costs}
        winner = replace(winner, predicted={**said, **winner.predicted})
        return Found(space, self.key, tuple(budgets), winner, winner, extras)

    @staticmethod
    def _front(
        archs: Sequence[Architecture], values: F, grader: Grader, costs: Sequence[Score], run: Run
    ) -> list[dict[str, Json]]:
        """Those that none beats in all objectives, by the first cost: kept for the page."""
        paid, quality = [score(archs) for score in costs], grader.metric
        points = [
            {
                "architecture": list(archs[i]),
                "quality": float(values[i]),
                **{score.metric.name: float(cost[i]) for score, cost in zip(costs, paid)},
            }
            for i in np.argsort(paid[0], kind="stable")
        ]
        first = costs[0].metric.name
        told = {
            "cost": first,
            "others": [score.metric.name for score in costs[1:]],
            "quality": quality.name,
            "by": grader.by,
            "front": [{**point, "cost": point[first]} for point in points],
        }
        write_json(run.path / "front.json", told)
        return points
