"""Hyper-parameters of the methods, typed and documented; imports no torch, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sartor.core.errors import UserError, unknown
from sartor.core.types import Optimiser

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace
    from sartor.core.task import Task


class Settings(BaseModel):
    """Base of all methods: frozen, and an unknown key is an error.

    weighs: a cost without a limit can be given as an objective; fronts: costs can be objectives beside quality, limits
    or not; asks: a score of quality can be one; transfers: it can begin with what another run trained; example: a
    setting that makes a first search short, of example_space within example_budget.
    """

    example: ClassVar[str] = "epochs=30"
    example_space: ClassVar[str] = "mobilenet:tiny"
    example_budget: ClassVar[str] = "0.1ms"
    weighs: ClassVar[bool] = False
    fronts: ClassVar[bool] = False
    transfers: ClassVar[bool] = False
    asks: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, paper: bool = False) -> Self:
        """Settings from text or data, on top of the defaults or of the published values.

        Raises UserError, in one line, for an unknown key or a value that does not fit.
        """
        for key in values:
            if key not in cls.model_fields:
                raise unknown("setting", key, cls.model_fields)
        try:
            return cls.paper(**values) if paper else cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "settings"
            raise UserError(f"setting {name}={first['input']!r}: {first['msg']}; change it.") from None

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Every hyper-parameter as published; `changes` on top."""
        return cls(**changes)

    def sensible(self, limits: int, objectives: int) -> None:
        """Raise UserError for settings that do not go together, or not with so many budgets and costs to weigh.

        It needs neither space nor scores, so that nothing has to be measured before.
        """

    def suits(self, space: SearchSpace, task: Task) -> None:
        """Raise UserError for settings that this space or these data do not allow, before anything is measured."""


def _trains_logits(epochs: int, warmup_epochs: int) -> None:
    if epochs <= warmup_epochs:
        raise UserError(
            f"epochs={epochs} trains no logits; give more than warmup_epochs={warmup_epochs}, or lower that with "
            "--set warmup_epochs=..."
        )


class LightNASSettings(Settings):
    """Thesis 4.4.1; values that only the public code has are marked (code)."""

    epochs: int = Field(90, ge=0, description="passes over the data; 0 lands from the initial logits")
    warmup_epochs: int = Field(10, ge=0, description="first epochs, logits frozen")
    batch_size: int = Field(128, ge=2, description="of weight and logit updates alike")
    lr: float = Field(0.1, gt=0, description="weights: SGD, cosine to 0")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    clip_norm: float = Field(5.0, gt=0, description="gradient norm of the weights (code)")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="of the search's loss; 0.1 in the code")
    arch_lr: float | None = Field(
        None, gt=0, description="logits: Adam; default 1e-3, or 3 / updates where updates are fewer than 3,000"
    )
    arch_weight_decay: float = Field(1e-3, ge=0)
    temperature: float = Field(
        5.0, gt=0, description="of the Gumbel samples; falls to 1/3000 of it, exponentially (code)"
    )
    controller: Literal["settling", "published"] = Field(
        "settling",
        description="published: multiplier on the sampled path's cost, raised by the argmax's violation; "
        "settling: the nearest distribution that meets the budget, after every update",
    )
    multiplier_lr: float = Field(5e-4, gt=0, description="ascent step of the published controller")
    decision: float = Field(
        6.0, ge=0, description="settling controller: weight of the cost's spread under P at the end"
    )
    multiplier: float | None = Field(
        None, description="a fixed multiplier of cost / limit - 1 instead of a learned one (Fig. 4.3)"
    )
    paths: Literal["one", "all"] = Field(
        "one", description="run a step: one sampled path, or all candidates weighed by P, as DARTS (Table 4.3)"
    )
    identity: float = Field(
        2.0, ge=0, description="weight of the identity mapping, linearly to 0 once logits train (code); 0: without"
    )
    accuracy_term: bool = Field(True, description="without it only the budget drives the logits (Fig. 4.13)")
    sign_clip: bool = Field(False, description="published controller: drop a multiplier of the wrong sign (code)")
    final_damping: bool = Field(False, description="last eighth: logits slow down once near the budget (code)")
    halving: bool = Field(False, description="halve the logits' learning rate each quarter of the search (code)")
    fair_warmup: bool = Field(False, description="warm-up trains all candidates on every batch, K paths (code)")
    land: bool = Field(True, description="end with the most probable architecture inside the budgets")

    def sensible(self, limits: int, objectives: int) -> None:
        if self.epochs > 0:
            _trains_logits(self.epochs, self.warmup_epochs)
        if not limits:
            raise UserError("lightnas needs a budget; add one such as --budget 20ms.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published: dict[str, Any] = {
            "controller": "published",
            "identity": 0.0,
            "arch_lr": 1e-3,
            "land": False,
        }
        return cls(**{**published, **changes})


class LightNASChannelsSettings(Settings):
    """Thesis 4.3.5 and Algorithm 2; values marked (ours) are not published."""

    example = "iterations=5"
    asks = True
    proxy: Literal[
        "bte",
        "bte-clipped",
        "tse",
        "tse-e",
        "tse-ema",
        "synflow",
        "snip",
        "grad-norm",
        "jacob-cov",
        "naswot",
        "zen",
        "vote",
    ] = Field("bte-clipped", description="what grades a network; paper: bte")
    epochs: int = Field(3, ge=2, description="that a network is trained for to be graded")
    lr: float = Field(0.1, gt=0, description="of those: SGD, constant (ours)")
    batch_size: int = Field(64, ge=2, description="of those (ours)")
    batches: int | None = Field(None, ge=1, description="of an epoch; default: all (ours)")
    seeds: int = Field(1, ge=1, description="initialisations that a grade is averaged over (ours)")
    iterations: int = Field(20, ge=1, description="generations")
    population: int = Field(20, ge=2)
    keep: int = Field(10, ge=1, description="members that stay")
    gene_rate: float = Field(0.1, gt=0, le=1, description="of choices drawn anew in a mutation; paper: 0.5")
    tolerance: float = Field(
        0.02, gt=0, lt=1, description="share of an upper limit by which a member may stay below it (ours)"
    )
    workers: int = Field(1, ge=1, description="processes that grade, each with one thread")

    def sensible(self, limits: int, objectives: int) -> None:
        if not limits:
            raise UserError("lightnas-channels needs a budget; add one such as --budget 20ms.")
        if self.keep >= self.population:
            raise UserError(f"keep={self.keep} of population={self.population} leaves no child; keep fewer.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        return cls(**{"proxy": "bte", "gene_rate": 0.5, **changes})


class DominoSettings(Settings):
    """Thesis 5.3, trainings 5.4.1 (of the proxy's, which are not told apart); (ours) is not published."""

    example = "epochs=3"
    asks = True
    proxy: Literal["supernet", "tuned", "scratch"] = Field(
        "supernet",
        description="who grades networks: one of shared weights (ours), or each trained from those of the model (ours) "
        "or from scratch (paper)",
    )
    networks: int = Field(200, ge=8, description="graded by the proxy; paper: 1000")
    classes: int | None = Field(None, ge=2, description="of the proxy's data, default all; paper: 10 of 1000")
    epochs: int = Field(10, ge=1, description="of the supernet, or of each training by the proxy; paper: 180")
    batch_size: int = Field(128, ge=2, description="of those, and of targets; paper: 1024")
    lr: float | None = Field(
        None,
        gt=0,
        description="of the proxy, and of targets that are trained alike; default: 0.05, tuned 0.01, scratch 0.1; "
        "paper: 0.5",
    )
    weight_decay: float = Field(5e-4, ge=0, description="of trainings by proxy and target; paper: 4e-5")
    predictor: Literal["estimate", "calibrated", "episode", "pair", "direct", "transfer", "fine-tune"] = Field(
        "estimate", description="of accuracy, from the grades (ours); paper: pair, others are those compared with it"
    )
    targets: int = Field(0, ge=0, description="networks trained on all of the data, too; paper: 10")
    target_epochs: int = Field(30, ge=1, description="of those; paper: 180")
    population: int = Field(
        100,
        ge=2,
        description="of the evolution, where networks are too many to be looked at (ours, as in Once-for-All)",
    )
    keep: int = Field(25, ge=1, description="members that stay, and are parents (ours, as there)")
    gene_rate: float = Field(0.1, gt=0, le=1, description="of choices drawn anew in a mutation (ours, as there)")
    iterations: int = Field(500, ge=1, description="generations (ours, as there)")

    def sensible(self, limits: int, objectives: int) -> None:
        if not limits:
            raise UserError("domino needs a budget; add one such as --budget 20ms.")
        if self.keep >= self.population:
            raise UserError(f"keep={self.keep} of population={self.population} leaves no child; keep fewer.")
        if self.targets < 2 and self.predictor not in ("estimate", "transfer"):
            raise UserError(
                f"predictor={self.predictor} learns from networks trained on all of the data; give targets=10, or "
                "predictor=estimate, which does without."
            )
        if self.targets and self.predictor in ("estimate", "transfer"):
            raise UserError(
                f"predictor={self.predictor} does not look at networks trained on all of the data; give targets=0."
            )
        if self.targets > self.networks:
            raise UserError(f"targets={self.targets} are of the networks={self.networks} of the proxy; give fewer.")

    def suits(self, space: SearchSpace, task: Task) -> None:
        known = getattr(task, "classes", 0)
        if self.classes is not None and self.classes >= known:
            raise UserError(f"classes={self.classes} is no part of the {known} classes of the data; give fewer.")
        if self.proxy == "supernet" and not space.has_supernet:
            raise UserError(f"space {space.name!r} has no supernet; take proxy=scratch.")
        if self.proxy == "tuned" and not getattr(space, "trained", False):
            raise UserError(
                "proxy=tuned begins with weights, and there are none; give ?weights=FILE, or proxy=scratch."
            )

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published: dict[str, Any] = {
            "proxy": "scratch",
            "networks": 1000,
            "classes": 10,
            "epochs": 180,
            "batch_size": 1024,
            "lr": 0.5,
            "weight_decay": 4e-5,
            "predictor": "pair",
            "targets": 10,
            "target_epochs": 180,
        }
        return cls(**{**published, **changes})


class SPOSSettings(Settings):
    """The public code of SPOS, whose numbers `paper` has; values marked (ours) are not published."""

    example = "epochs=5"
    asks = True
    fronts = True
    epochs: int = Field(60, ge=1, description="of the supernet; paper: 120, 150,000 iterations of ImageNet")
    batch_size: int = Field(64, ge=2, description="of the supernet; paper: 1024")
    lr: float | None = Field(
        None, gt=0, description="of the supernet, linear to 0; default 0.05, AdamW 1e-3 (ours); paper: 0.5"
    )
    label_smoothing: float | None = Field(
        None, ge=0, lt=1, description="of the supernet's loss; default: that of the data; paper: 0.1"
    )
    sampling: Literal["uniform", "macs"] = Field(
        "uniform",
        description="of the supernet's paths; macs: seven ranges of multiply-accumulates, each as often (code)",
    )
    calibration: int = Field(
        4, ge=0, description="batches of 256 that norms of a network are calibrated on; 0: as they are; paper: 100"
    )
    valid_batches: int | None = Field(None, ge=1, description="batches of 512 that grade it; default all; paper: 16")
    iterations: int = Field(20, ge=1, description="generations")
    population: int = Field(
        60, ge=4, description="networks of a generation: those that stay and their children; paper: 10 and 50"
    )
    keep: int = Field(10, ge=1, description="that stay, and are parents; with several objectives half of all do")
    gene_rate: float = Field(0.1, gt=0, le=1, description="of choices drawn anew in a mutation")

    def sensible(self, limits: int, objectives: int) -> None:
        if self.keep >= self.population and not objectives:
            raise UserError(f"keep={self.keep} of population={self.population} leaves no child; keep fewer.")

    def suits(self, space: SearchSpace, task: Task) -> None:
        if not space.has_supernet:
            also = ", or give --oracle" if self.asks else ""
            raise UserError(f"space {space.name!r} has no supernet; take one that has{also}.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published: dict[str, Any] = {
            "epochs": 120,
            "batch_size": 1024,
            "lr": 0.5,
            "label_smoothing": 0.1,
            "sampling": "macs",
            "calibration": 100,
            "valid_batches": 16,
        }
        return cls(**{**published, **changes})


class SupernetShiftingSettings(SPOSSettings):
    """The appendix of Supernet Shifting and its code; values marked (ours) are not published."""

    asks = False
    transfers = True
    source: str | None = Field(
        None, description="a run whose supernet is shifted instead of a new one, with another classifier (--from)"
    )
    warmup: int = Field(
        0, ge=0, description="with source: first steps, on random paths, in which only the classifier is trained (ours)"
    )
    warmup_lr: float = Field(0.1, gt=0, description="of those (ours)")
    shift_lr: float = Field(1e-4, ge=0, description="constant; 0: the supernet stays, as in spos")
    samples: int = Field(640, ge=2, description="images that the supernet is shifted on")
    per: Literal["architecture", "generation"] = Field(
        "architecture", description="so many images for each network that is visited (code), or for all of a generation"
    )
    schedule: Literal["per_batch", "per_iteration"] = Field(
        "per_batch",
        description="an update after each batch of 32 (code), or one a generation by the mean gradient (abstract)",
    )
    revisit: bool = Field(
        True, description="networks that stay are shifted on and graded in each generation (ours); paper: false"
    )

    def sensible(self, limits: int, objectives: int) -> None:
        super().sensible(limits, objectives)
        if self.warmup and self.source is None:
            raise UserError(
                f"warmup={self.warmup} is of a classifier that --from replaces; give --from, or leave it out."
            )

    def suits(self, space: SearchSpace, task: Task) -> None:
        super().suits(space, task)
        if self.source is not None:  # refused before anything is measured
            from sartor.quality.transfer import load, of_run

            if not hasattr(task, "classes"):
                raise UserError("--from replaces a classifier, and these data have no classes; leave it out.")
            load(space.supernet(), of_run(self.source), classes=task.classes)

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        return super().paper(**{"revisit": False, "calibration": 0, "valid_batches": 24, **changes})


class NetworkSpaceSearchSettings(Settings):
    """Sections 4.1, 6.3 and 6.4, the rest from DARTS, to which the paper refers; (ours) is not published."""

    example = "epochs=20"
    example_space = "expanded"
    example_budget = "600MMACs"
    depths: int = Field(4, ge=1, description="depths of a window")
    widths: int = Field(32, ge=1, description="widths of a window")
    epochs: int = Field(50, ge=1, description="passes over the data")
    warmup_epochs: int = Field(15, ge=0, description="first epochs, logits frozen, largest sizes mixed in")
    batch_size: int = Field(64, ge=2, description="of weight and logit updates alike")
    lr: float = Field(0.025, gt=0, description="weights: SGD, cosine to 0 (DARTS)")
    momentum: float = Field(0.9, ge=0, lt=1, description="(DARTS)")
    weight_decay: float = Field(3e-4, ge=0, description="(DARTS)")
    clip_norm: float = Field(5.0, gt=0, description="gradient norm of the weights (DARTS)")
    arch_lr: float | None = Field(
        None, gt=0, description="logits: Adam; default 3e-4, or 3 / updates where that is more; paper: 3e-4 (DARTS)"
    )
    arch_weight_decay: float = Field(1e-3, ge=0, description="(DARTS)")
    temperature: float = Field(5.0, gt=0, description="of the Gumbel samples, at the start")
    last_temperature: float = Field(1e-3, gt=0, description="at the end; linear between")
    gates: Literal["hard", "soft"] = Field(
        "hard",
        description="in updates of logits: one window in value, all in gradient, or all by their weight; not stated",
    )
    controller: Literal["settling", "published"] = Field(
        "settling",
        description="published: a fixed multiplier of |cost / limit - 1|; settling: the nearest distribution that "
        "meets the budget, after every update (ours)",
    )
    multiplier: float = Field(1.0, ge=0, description="published controller: the multiplier; its value is not stated")
    complexity: Literal["mean", "effective"] = Field(
        "mean",
        description="cost of a space: the mean of its networks (ours), or multiply-accumulates of its mean sizes; "
        "paper: effective",
    )
    decision: float = Field(
        6.0, ge=0, description="settling controller: weight of the cost's spread under P at the end (ours)"
    )
    samples: int = Field(5, ge=1, description="spaces that are drawn in the end, of which the nearest is taken")
    land: bool = Field(
        True, description="end with the most probable space inside the budgets instead (ours); paper: false"
    )
    tolerance: float = Field(
        0.05, gt=0, lt=1, description="share of a limit by which the cost of a space may stay below it, to land (ours)"
    )
    accuracy_term: bool = Field(True, description="without it only the budget drives the logits")

    def sensible(self, limits: int, objectives: int) -> None:
        _trains_logits(self.epochs, self.warmup_epochs)
        if not limits:
            raise UserError("network-space-search needs a budget; add one such as --budget 100MMACs.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published: dict[str, Any] = {
            "arch_lr": 3e-4,
            "controller": "published",
            "complexity": "effective",
            "land": False,
        }
        return cls(**{**published, **changes})


class SurgeNASSettings(Settings):
    """Thesis 3.4.1; values marked (ours) are not published."""

    weighs = True
    epochs: int = Field(75, ge=1, description="passes over the data")
    warmup_epochs: int = Field(25, ge=0, description="first epochs, logits frozen")
    batch_size: int = Field(232, ge=2)
    lr: float = Field(0.1, gt=0, description="weights: SGD, cosine to 0")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(3e-5, ge=0)
    clip_norm: float = Field(5.0, gt=0, description="gradient norm of the weights")
    arch_lr: float | None = Field(
        None,
        gt=0,
        description="logits: Adam; default 7.5e-4, or 10 / updates (with a budget 3 / updates) where that is more",
    )
    arch_weight_decay: float = Field(1e-3, ge=0)
    temperature: float = Field(1.0, gt=0, description="of the samples, at the start")
    last_temperature: float = Field(1e-3, gt=0, description="of the samples, at the end; exponential between (ours)")
    identity: float = Field(2.0, ge=0, description="weight of the identity mapping, linearly to 0; 0: without")
    beta: float | None = Field(
        None,
        ge=0,
        description="weight of the cost, per its unit, instead of a budget (Eq. 3.12), of every cost; 0: no cost",
    )
    none: bool = Field(
        False,
        description="without a cost: the network may have `none`, whose straight-through gradient is 0; paper: true",
    )
    decision: float = Field(
        6.0, ge=0, description="with a budget: weight of the cost's spread under P at the end (ours)"
    )
    land: bool = Field(True, description="with a budget: end with the most probable architecture inside it (ours)")

    def sensible(self, limits: int, objectives: int) -> None:
        _trains_logits(self.epochs, self.warmup_epochs)
        if limits and self.beta is not None:
            raise UserError(f"surgenas was given beta={self.beta:g} and a budget, which drives beta; give one of them.")
        if not limits and self.beta is None:
            raise UserError(
                "surgenas needs a budget such as --budget 20ms, or a cost to weigh such as --objective latency_ms "
                "--set beta=1, or --set beta=0 for none."
            )
        if self.beta and not objectives:
            raise UserError(f"beta={self.beta:g} has no cost to weigh; give one such as --objective latency_ms.")
        if limits and objectives:
            raise UserError("surgenas weighs costs or keeps budgets, not both; leave out objectives or budgets.")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        return cls(**{"arch_lr": 7.5e-4, "land": False, "none": True, **changes})


class MathNASSettings(Settings):
    """MathNAS has few hyper-parameters; values marked (ours) are not published."""

    asks = True
    predictor: Literal["estimate", "blocks"] = Field(
        "estimate", description="estimate: learnt from random networks (ours); blocks: the published block tables"
    )
    queries: int = Field(781, ge=8, description="estimate: networks that are asked about (ours)")
    active: float = Field(
        0.2, ge=0, le=0.9, description="estimate: share of the queries that go where the best may be (ours)"
    )
    rounds: int = Field(4, ge=1, description="estimate: how often the estimate is made anew for those (ours)")
    members: tuple[str, ...] = Field(
        ("ridge", "pairs", "svm", "gp", "gnn-plain"),
        min_length=1,
        description="estimate: predictors that are stacked (ours)",
    )
    contexts: int = Field(
        1, ge=1, description="blocks: 1 measures in the average network, more in as many random ones (partial sampling)"
    )
    macs: Literal["per_block", "global", "context", "none"] = Field(
        "per_block", description="blocks: the MACs that scale a difference (Eq. 5: per_block, Eq. 6: global)"
    )
    seconds: float = Field(60.0, gt=0, description="limit for one integer program; paper: 10 for transformers")
    epochs: int = Field(100, ge=1, description="supernet: passes over the data")
    batch_size: int = Field(64, ge=2, description="supernet")
    optimiser: Optimiser | None = Field(None, description="supernet: sgd or adamw; default: as the space wants (ours)")
    lr: float | None = Field(None, gt=0, description="supernet: cosine to 0; default 0.05, adamw 1e-3 (ours)")
    calibration: int = Field(4, ge=1, description="supernet: batches that norms of a sub-network are calibrated on")
    valid_batches: int | None = Field(None, ge=1, description="supernet: batches that grade a sub-network; default all")

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        return cls(**{"predictor": "blocks", **changes})
