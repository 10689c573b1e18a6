"""Settings of Network Space Search."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings, trains_logits


class NetworkSpaceSearchSettings(Settings):
    """Sections 4.1, 6.3 and 6.4, the rest from DARTS, to which the paper refers; (ours) is not published."""

    example = "epochs=20"
    example_space = "expanded"
    example_budget = "600MMACs"
    depths: int = Field(4, ge=1, description="depths of a window")
    widths: int = Field(32, ge=1, description="widths of a window")
    epochs: int = Field(50, ge=1, description="passes over the data")
    warmup_epochs: int | None = Field(
        None, ge=0, description="first epochs, logits frozen, largest sizes mixed in; default three tenths (15 of 50)"
    )
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
        description="published: a fixed multiplier of |cost / limit - 1| for each budget; settling: the nearest "
        "distribution whose cost lies in the middle of what lands, after every update (ours)",
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
        0.05,
        gt=0,
        lt=1,
        description="share of a limit by which the cost of a space may differ, to land; limits are upper ones unless "
        "two-sided (ours)",
    )
    accuracy_term: bool = Field(True, description="without it only the budget drives the logits")

    def sensible(self, limits: int, objectives: int) -> None:
        trains_logits(self.epochs, self.warmup)
        if not limits:
            raise UserError("network-space-search needs a budget; add one such as --budget 100MMACs.")

    @property
    def warmup(self) -> int:
        """Epochs of it."""
        return round(0.3 * self.epochs) if self.warmup_epochs is None else self.warmup_epochs

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published: dict[str, Any] = {
            "arch_lr": 3e-4,
            "controller": "published",
            "complexity": "effective",
            "land": False,
        }
        return cls(**{**published, **changes})
