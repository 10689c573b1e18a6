"""Settings of LightNAS."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings, trains_logits


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
            trains_logits(self.epochs, self.warmup_epochs)
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
