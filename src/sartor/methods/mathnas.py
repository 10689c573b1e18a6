"""MathNAS: ask about few networks, predict all of them, choose by an integer program.

Q. Wang, S. Cao et al., "MathNAS: If Blocks Have a Role in Mathematical Architecture Design", NeurIPS 2023.

    1  N_avg: the candidate of average MACs in every slot                                  Algorithm 1
    2  b_ij: what is lost when slot i of N_avg goes from its reference to candidate j      Eq. 3
    3  the base network: the largest candidate in every slot
    4  Acc(N) = Acc(base) - sum_i b_i,Ji F_ij / F(N), maximised within the budgets         Eq. 5, 6, 9-11

That is `predictor="blocks"`: sum(n_i) - m + 2 networks are asked about where no slot is conditional, more with more
`contexts` (the partial sampling of Eq. 7), and the ratio of Eq. 5 is maximised, to proven optimality where costs have
terms and time allows (`choose.exact`). What the print calls the base net of average FLOPs is N_avg, the context; the
base network is the one of its super blocks. Where the print is wrong or silent `quality.blocks` says what was chosen:
which block is the reference, whether F has stem and head, which F stands where (Eq. 6 has one mean F for all blocks,
`macs=global`; `per_block` here and in `paper()`). The Charnes-Cooper program of the print lacks its normalisation;
Dinkelbach's iteration stands instead. Costs are predictors fitted on measured networks instead of block tables b^L,
b^E; with `ridge` they are the same additive form, fitted by least squares.

What we do by default, `predictor="estimate"`: on the whole of NAS-Bench-201 the formula's order is right in a rank
correlation of .6 to .8, whatever is spent. So `queries` networks are asked about, most drawn at random, the last fifth
where the estimate says the best may be (`quality.sampling`); ranks are learned by stacked predictors with interactions
(`quality.estimate`); what has been asked about decides.

The oracle is a score that the caller gives (a table, any function), or a supernet trained here, whose sub-networks are
graded with norms of their own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sartor.choose.exact import ENUMERATE
from sartor.choose.solve import best_within, check_reachable, standing
from sartor.core import (
    Architecture,
    Budget,
    Found,
    Json,
    Score,
    SearchSpace,
    Task,
    Terms,
    Unreachable,
    UserError,
)
from sartor.methods.settings.mathnas import MathNASSettings
from sartor.quality.blocks import additive_macs, average_network, block_score
from sartor.quality.estimate import LEAST, Estimate
from sartor.quality.sampling import ActiveSampling, admissible
from sartor.quality.supernet import Remembered, SupernetScore, train_supernet
from sartor.runs import Run, write_json

_OTHERS = 64  # networks outside the budgets that are asked about at most
LITTLE = 0.3  # share of the answers' differences that is predicted
logger = logging.getLogger("sartor")


@dataclass(frozen=True)
class Learned:
    """A score of all networks, and the answers it rests on where those may decide."""

    score: Score
    told: dict[Architecture, float] = field(default_factory=dict)


class MathNAS(MathNASSettings):
    """Search by exact optimisation of what few networks tell. Hyper-parameters are the fields."""

    def check(self, space: SearchSpace, budgets: Sequence[Budget]) -> None:
        if self.predictor == "blocks" and self.macs != "none":
            additive_macs(space)

    def search(
        self, space: SearchSpace, objectives: Sequence[Score], budgets: Sequence[Budget], run: Run, task: Task | None
    ) -> Found:
        """Search. objectives: one score of quality, or none to train a supernet on the task."""
        self.check(space, budgets)
        check_reachable(space, budgets, bind=False)
        quality = Remembered(self.oracle(space, objectives, run, task), run)
        learned = self.learn(space, quality, budgets, run)
        if isinstance(learned.score, Estimate):
            answers, predicted = learned.score.out_of_fold()
            points = {"measured": answers.tolist(), "predicted": {"estimate": predicted.tolist()}}
            write_json(run.path / "answers.json", {"metric": quality.metric.name, "points": points})
            if learned.score.explained < LITTLE:
                logger.warning(
                    "the answers tell little: %.0f %% of their differences are predicted; train the supernet for more "
                    "epochs, or ask more queries",
                    100 * learned.score.explained,
                )
        return self.choose(space, learned, budgets, run.rng("choose"))

    def oracle(self, space: SearchSpace, objectives: Sequence[Score], run: Run, task: Task | None) -> Score:
        """Who is asked: the score given, or a supernet, trained unless the run has it."""
        if len(objectives) > 1:
            raise UserError(f"mathnas maximises one score of quality; {len(objectives)} were given: leave one.")
        if objectives:
            return objectives[0]
        if task is None or not space.has_supernet:
            raise UserError(
                f"mathnas has nobody to ask about networks of {space.name!r}; give a score of quality as objective, "
                "or a task and a space that has a supernet."
            )
        supernet = train_supernet(
            space,
            task,
            run.stage("supernet"),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            lr=self.lr,
        )
        return SupernetScore(space, supernet, task, calibration=self.calibration, limit=self.valid_batches)

    # ------------------------------------------------------------------ learning

    def learn(self, space: SearchSpace, quality: Score, budgets: Sequence[Budget], run: Run) -> Learned:
        """Ask, and predict every network from the answers."""
        if self.predictor == "blocks":
            return Learned(self._blocks(space, quality, run))
        queries = min(self.queries, space.size)
        first = max(LEAST, round((1.0 - self.active) * queries))
        batch = math.ceil((queries - first) / self.rounds) or first  # all at once where nothing is active
        seed = run.torch_seed("ask") % 2**32
        sampler = ActiveSampling(space, metric=quality.metric, first=first, batch=batch, budgets=budgets, seed=seed)
        for step in run.stage("ask").steps(1 + self.rounds, sampler=sampler):
            goal = min(first + step * batch, queries)
            while len(sampler.answers) < goal and len(sampler.told) < 2 * queries and (asked := sampler.ask()):
                asked = asked[: goal - len(sampler.answers)]
                sampler.tell(asked, quality(asked))
            if not sampler.told:
                raise Unreachable(f"no network was found within {' and '.join(map(str, budgets))}; raise a limit.")
            if not sampler.answers:
                raise UserError(
                    f"all {len(sampler.told)} networks that were asked about failed; mend what grades them."
                )
            best = max(sampler.answers.values()) if sampler.sign > 0 else min(sampler.answers.values())
            run.stage("ask").log("asked", networks=len(sampler.answers), best=best)
        if len(sampler.answers) < LEAST:  # so few keep the budgets: others tell about them
            every = list(space.enumerate()) if space.size <= ENUMERATE else space.sample(run.rng("every"), _OTHERS)
            rest = [arch for arch in dict.fromkeys(every) if arch not in sampler.told]
            for i in run.rng("rest").permutation(len(rest))[:_OTHERS]:
                if len(sampler.answers) < LEAST:
                    sampler.tell([rest[i]], quality([rest[i]]))
        if len(sampler.answers) < min(queries, LEAST):
            raise UserError(
                f"only {len(sampler.answers)} of {len(sampler.told)} networks asked about could be graded; an estimate "
                f"needs {LEAST}: mend what grades them."
            )
        if len(sampler.answers) < queries:
            logger.warning("%d networks were asked about instead of %d", len(sampler.answers), queries)
        return Learned(sampler.estimate(self.members), sampler.answers)

    def _blocks(self, space: SearchSpace, quality: Score, run: Run) -> Score:
        """Algorithm 1, or the partial sampling of Eq. 7."""
        try:
            macs = additive_macs(space)
        except UserError:  # without them the first candidates are the context and the last ones the base
            if self.macs != "none":
                raise
            macs = Terms(0.0, tuple(np.zeros(len(slot)) for slot in space.slots))
        contexts = [average_network(space, macs)]  # step 1
        if self.contexts > 1:
            contexts = space.sample(run.rng("contexts"), self.contexts)
        return block_score(space, quality, macs, contexts=contexts, mode=self.macs)  # steps 2 to 4

    # ------------------------------------------------------------------ choosing

    def choose(
        self, space: SearchSpace, learned: Learned, budgets: Sequence[Budget], rng: np.random.Generator
    ) -> Found:
        """The best network within the budgets: by the answers where there are any, or else by the program."""
        score, known = learned.score, admissible(list(learned.told), budgets)
        arch, status = self._program(space, score, budgets, rng, known)
        best = standing(arch, budgets, status)
        extras: dict[str, Json] = {
            "quality": score.metric.name,
            "predicted": float(score([arch])[0]),
            "program": status,
        }
        winner = best
        if isinstance(score, Estimate):
            low, high = score.interval([best.architecture])
            extras |= {"interval": [float(low[0]), float(high[0])], "explained": score.explained}
            extras |= {"answers": len(score.archs), "weights": score.weights}
            if known:
                arch = max(known, key=lambda a: score.sign * learned.told[a])
                winner = standing(arch, budgets, "verified")
                extras["answer"] = learned.told[arch]
        return Found(space, "mathnas", tuple(budgets), winner, best, extras)

    def _program(
        self,
        space: SearchSpace,
        score: Score,
        budgets: Sequence[Budget],
        rng: np.random.Generator,
        known: Sequence[Architecture],
    ) -> tuple[Architecture, str]:
        """The best by the prediction: of all networks where they can be looked at, or by the integer program.

        And whether that is proven: `optimal`, or `verified`, the best so far. known: networks within the budgets, for
        where the program finds none.
        """
        if isinstance(score, Estimate):
            archs = admissible(list(space.enumerate()), budgets) if space.size <= ENUMERATE else []
            if archs:
                return archs[int(np.argmax(score.normal(archs)[0]))], "optimal"
            reward = score.polynomial()
        else:
            terms = score.terms()
            assert terms is not None  # block tables have
            reward = terms if score.metric.better == "more" else terms.times(-1.0)
        best = best_within(space, reward, budgets, rng=rng, seconds=self.seconds)
        if not all(b.feasible(float(b.score([best.architecture])[0])) for b in budgets):
            if known:
                sign = 1.0 if score.metric.better == "more" else -1.0
                return known[int(np.argmax(sign * score(known)))], "verified"
            together = " and ".join(map(str, budgets))
            raise Unreachable(
                f"no network was found within {together} together in {self.seconds:g} s; raise one of the limits, or "
                "give the program more seconds."
            )
        return best.architecture, best.status
