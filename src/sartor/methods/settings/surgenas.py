"""Settings of SurgeNAS."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings, trains_logits


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
        trains_logits(self.epochs, self.warmup_epochs)
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
