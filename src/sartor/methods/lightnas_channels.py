"""LightNAS++: channels by evolution, graded by how well a network learns in its first epochs.

X. Luo et al., "LightNAS", thesis section 4.3.5, Algorithm 2.

    maximise BTE(alpha_c)  s.t.  LAT(alpha_c) = T, c a channel configuration                       Eq. 4.13

    line  1    a population of random configurations within the latency    Population._first
    lines 2, 3 for 20 generations                                           run.steps
    line  4    grade each by BTE                                            _generation
    line  5    the 10 best of all so far                                    Population.best
    line  6    cross them, within the latency                               Population._crossed
    line  7    change them, within the latency                              Population._mutated
    line  8    the next population: those, and the 10 best                  Population._next
    line  10   the best                                                     Population.best

A generation is made (5 - 8) when it is asked for, so that none is made after the last that is graded. The space is
`spaces/channels` around a found network (`sartor refine RUN`), but any whose networks can be trained can be searched
like this. What the thesis leaves open, and how networks that miss the latency are drawn again and repaired, is in
`choose.evolve.Population`; what BTE is, in `quality.early`.

Where we differ:
  1. `proxy`. The product in BTE takes two losses that rise in a row for two that fall, so that a network that diverges
     can win; `bte-clipped` counts a rise as no progress. `LightNASChannels.paper()` has the published one, and draws
     half of a changed network's choices anew, as the published rate of 0.5 can be read.
  2. One budget that is an upper limit is met from below: latencies from T (1 - `tolerance`) to T, or anything below T
     where nothing is that near. With `--two-sided` they are within half a percent on both sides; the thesis has LAT = T
     and does not say how near. Of several upper limits each is kept, and none has to be near.
  3. The network as it was is graded, too, and in the first population where it keeps the budget.
  4. A network that can no longer reach the kept ones is not trained on, which the clipped form allows to know (with one
     seed): it stands at what it could have become at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np

from sartor.choose.evolve import Population, Within
from sartor.choose.solve import check_reachable, some_within, standing
from sartor.core import Budget, Found, Score, SearchSpace, Task, UserError
from sartor.methods.settings.lightnas_channels import LightNASChannelsSettings
from sartor.quality.proxies import PROXIES, Floored, Learned, Processes, ProxyScore
from sartor.quality.supernet import Remembered
from sartor.runs import Run


class LightNASChannels(LightNASChannelsSettings):
    """Evolution within budgets by a proxy. Hyper-parameters are the fields; see the module's docstring."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        self.sensible(len(budgets), 0)

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. objectives: one score of quality instead of the proxy on the task."""
        self.check(space, budgets)
        check_reachable(space, budgets)
        before = [space.unscaled] if hasattr(space, "unscaled") else []  # the network as it was
        with self._proxy(space, objectives, task, run) as proxy:
            remembered = Remembered(proxy, run, self.workers)
            scores = {"unrefined": next(map(float, remembered(before)), None), "score": None}
            make = partial(
                Population,
                space,
                better=proxy.metric.better,
                population=self.population,
                keep=self.keep,
                gene_rate=self.gene_rate,
                seed=run.torch_seed("evolution") % 2**32,
            )
            population = make(within=Within(space, self._bands(budgets)), start=before)
            if not population.ask():  # nothing that is drawn or repaired is so near the limit
                landed = some_within(space, budgets, run.rng("landing"))
                population = make(within=Within(space, budgets), start=[*before, landed.architecture])
                if not population.ask():
                    return Found(space, "lightnas-channels", tuple(budgets), landed, landed, scores)
            for step in run.steps(self.iterations, population=population):
                self._generation(population, remembered, proxy)
                if not population.best():
                    raise UserError("every network that was graded failed; mend what grades them, or lower lr.")
                self._log(run, step, population, budgets)
            best, *_ = population.best()
        winner = standing(best, budgets, "verified")
        return Found(
            space, "lightnas-channels", tuple(budgets), winner, winner, {**scores, "score": population.told[best]}
        )

    def _generation(self, population: Population, remembered: Score, proxy: Score) -> None:
        """Line 4: ask until every member has a value; none is trained longer than it can still be among the kept."""
        new = population.ask()
        for i in range(0, len(new), self.workers):
            kept = [population.told[arch] for arch in population.best()[: self.keep]]
            if isinstance(proxy, Floored) and len(kept) == self.keep:
                proxy.floor = min(kept)
            some = new[i : i + self.workers]
            population.tell(some, remembered(some))

    @staticmethod
    def _log(run: Run, step: int, population: Population, budgets: Sequence[Budget]) -> None:
        best, values = population.best()[0], [population.told[arch] for arch in population.members]
        run.log(
            "generation",
            generation=step,
            best=population.told[best],
            median=float(np.nanmedian(values)),
            asked=len(population.told),
            **{f"gap {b.score.metric.name} (%)": b.gap_percent(float(b.score([best])[0])) for b in budgets},
            scores=[value if math.isfinite(value) else None for value in values],
            members=[list(arch) for arch in population.members],
        )

    def _bands(self, budgets: Sequence[Budget]) -> list[Budget]:
        """A single upper limit is met from below; of several each is kept; two-sided ones have their tolerance."""
        if len(budgets) > 1 or budgets[0].sense == "at":
            return list(budgets)
        (budget,), middle = budgets, 1.0 - self.tolerance / 2
        return [Budget(budget.score, budget.limit * middle, "at", self.tolerance / 2 / middle)]

    @contextmanager
    def _proxy(self, space: SearchSpace, objectives: Sequence[Score], task: Task | None, run: Run) -> Iterator[Score]:
        """The score given, or the proxy on the task."""
        if len(objectives) > 1:
            raise UserError(f"lightnas-channels maximises one score; {len(objectives)} were given: leave one.")
        if objectives:
            yield objectives[0]
            return
        if task is None:
            raise UserError("lightnas-channels trains on data; give it a task such as --data digits.")
        trained = {"epochs": self.epochs, "lr": self.lr} if isinstance(PROXIES[self.proxy](), Learned) else {}
        make = partial(
            ProxyScore,
            space,
            task,
            self.proxy,
            batch_size=self.batch_size,
            limit=self.batches,
            seeds=self.seeds,
            seed=run.torch_seed("weights") % 2**32,
            **trained,
        )
        with Processes(make, self.workers) if self.workers > 1 else nullcontext(make()) as score:
            yield score
