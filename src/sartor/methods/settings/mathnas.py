"""Settings of MathNAS."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from sartor.core.types import Optimiser
from sartor.methods.settings.base import Settings


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
