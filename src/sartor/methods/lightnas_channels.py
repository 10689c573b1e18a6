"""LightNAS++: channels by evolution, graded by how well a network learns in its first epochs.

X. Luo et al., "LightNAS", thesis section 4.3.5, Algorithm 2.

    maximise BTE(alpha_c)  s.t.  LAT(alpha_c) = T, c a channel configuration                       Eq. 4.13
    population: random configurations within the latency                                        Algorithm 2, line 1
    20 times: grade by BTE; keep the top 10; cross and change them to fill up 20                lines 2 - 8
    return the best

The space is `spaces/channels` around a found network (`sartor refine RUN`), but nothing here knows of channels: any
space whose networks can be trained can be searched like this. What the thesis leaves open, and how networks that miss
the latency are drawn again and repaired, is in `choose.evolve.Population`; what BTE is, in `quality.early`.

Where we differ:
  1. `proxy`. The product in BTE takes two losses that rise in a row for two that fall, so that a network that diverges
     can win; `bte-clipped` counts a rise as no progress. `LightNASChannels.paper()` has the published one.
  2. A budget that is an upper limit is met from below: latencies from T (1 - `tolerance`) to T, or anything below T
     where nothing is that near. With `--two-sided` they are within half a percent on both sides; the thesis has LAT = T
     and does not say how near.
  3. The network as it was is in the first population where it keeps the budget: what is found is then not graded worse.
  4. A network that can no longer reach the kept ones is not trained on, which the clipped form allows to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sartor.choose.evolve import Population, Within
from sartor.choose.relax import priced
from sartor.choose.solve import check_reachable, land
from sartor.core import Architecture, Budget, Found, Score, SearchSpace, Task, UserError
from sartor.methods.settings import LightNASChannelsSettings
from sartor.quality.proxies import PROXIES, Learned, Processes, ProxyScore
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
        start = [space.unscaled] if hasattr(space, "unscaled") else []
        with self._graded(space, objectives, task, run) as asked:
            quality = Remembered(asked, run)
            make = partial(
                Population,
                space,
                better=asked.metric.better,
                population=self.population,
                keep=self.keep,
                gene_rate=self.gene_rate,
                seed=run.torch_seed("evolution") % 2**32,
            )
            within = Within(space, self._bands(budgets))
            search = make(within=within, start=start)
            if not search.ask():  # nothing that is drawn or repaired is so near the limit
                within, rng = Within(space, budgets), run.rng("landing")
                indifferent = tuple(np.zeros(len(slot)) for slot in space.slots)
                landed = land(space, indifferent, budgets, start=space.sample(rng, 1)[0], rng=rng)
                search = make(within=within, start=[*start, landed.architecture])
                if not search.ask():
                    return Found(space, "lightnas-channels", tuple(budgets), landed, landed)
            for step in run.steps(self.iterations, search=search):
                self._generation(search, quality, asked)
                values = [search.told[arch] for arch in search.members]
                best = search.best()
                if not best:
                    raise UserError("every network that was graded failed; mend what grades them, or lower lr.")
                run.log(
                    "generation",
                    generation=step,
                    best=search.told[best[0]],
                    median=float(np.nanmedian(values)),
                    asked=len(search.told),
                    **self._gaps(best[0], budgets),
                    scores=[value if math.isfinite(value) else None for value in values],
                    members=[list(arch) for arch in search.members],
                )
        winner = priced(search.best()[0], [b.score for b in budgets], "verified")
        if not any(b.lands(winner.predicted[b.score.metric.name]) for b in budgets):
            winner = replace(winner, status="within")
        before = {"unrefined": search.told.get(start[0]) if start else None, "score": search.told[winner.architecture]}
        return Found(space, "lightnas-channels", tuple(budgets), winner, winner, before)

    def _generation(self, search: Population, quality: Score, asked: Any) -> None:
        """Ask until every member has a value; none is trained longer than it can still be among the kept."""
        new = search.ask()
        for i in range(0, len(new), self.workers):
            kept = [search.told[arch] for arch in search.best()[: self.keep]]
            if isinstance(asked, ProxyScore | Processes) and len(kept) == self.keep:
                asked.floor = min(kept)
            some = new[i : i + self.workers]
            search.tell(some, quality(some))

    def _bands(self, budgets: Sequence[Budget]) -> list[Budget]:
        """A single upper limit is met from below; of several each is kept; two-sided ones have their own tolerance."""
        if len(budgets) > 1 or budgets[0].sense == "at":
            return list(budgets)
        (budget,), middle = budgets, 1.0 - self.tolerance / 2
        return [Budget(budget.score, budget.limit * middle, "at", self.tolerance / 2 / middle)]

    @staticmethod
    def _gaps(arch: Architecture, budgets: Sequence[Budget]) -> dict[str, float]:
        return {f"gap {b.score.metric.name} (%)": b.gap_percent(float(b.score([arch])[0])) for b in budgets}

    @contextmanager
    def _graded(self, space: SearchSpace, objectives: Sequence[Score], task: Task | None, run: Run) -> Iterator[Score]:
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
