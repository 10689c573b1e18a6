"""Settings of Supernet Shifting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.spos import SPOSSettings

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace
    from sartor.core.task import Task


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
