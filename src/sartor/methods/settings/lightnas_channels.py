"""Settings of the channel search of LightNAS."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings


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
