"""Settings of SPOS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace
    from sartor.core.task import Task


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
