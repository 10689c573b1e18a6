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
    """The appendix of Supernet Shifting, for ImageNet-1K, and its code; values marked (ours) are not published."""

    asks = False
    transfers = True
    source: str | None = Field(
        None,
        description="a run whose supernet is shifted instead of a new one; for other data the classifier is new",
    )
    warmup: int = Field(
        0,
        ge=0,
        description="with source: first steps, on random paths, that train the classifier's weights alone (ours)",
    )
    warmup_lr: float = Field(0.1, gt=0, description="of those (ours)")
    shift_lr: float = Field(1e-2, ge=0, description="of the shift (ours); 0: the weights stay; paper: 1e-4")
    samples: int = Field(640, ge=2, description="images that the supernet is shifted on")
    per: Literal["architecture", "generation"] | None = Field(
        None,
        description="so many images for each network that is visited (paper), or about so many for all of a "
        "generation; default a generation (ours), with source a network",
    )
    calibration: int = Field(
        4,
        ge=0,
        description="batches of 256 that norms of a network are calibrated on; paper: 0, as the shift left them",
    )
    valid_batches: int | None = Field(
        None, ge=1, description="batches of 512 that grade it; default all; paper: 24, of the code's 12,500 images"
    )
    schedule: Literal["per_batch", "per_iteration"] = Field(
        "per_batch",
        description="an update after each batch of 32, or one a generation by the mean gradient (abstract)",
    )
    revisit: bool = Field(False, description="networks that stay are shifted on and graded in each generation (ours)")

    def sensible(self, limits: int, objectives: int) -> None:
        super().sensible(limits, objectives)
        if self.source is not None:
            from sartor.quality.saved import of_run

            of_run(self.source)
        if self.warmup and self.source is None:
            raise UserError(
                f"warmup={self.warmup} is of a classifier that --from replaces; give --from, or leave it out."
            )

    def follows(self, space: SearchSpace) -> None:
        if self.source is not None:
            from sartor.quality.saved import same_space

            same_space(self.source, space)

    def suits(self, space: SearchSpace, task: Task) -> None:
        super().suits(space, task)
        if self.source is not None:  # refused before anything is measured
            from sartor.quality.saved import of_run
            from sartor.quality.transfer import load

            load(space.supernet(), of_run(self.source), classes=self.replaced(task))

    def replaced(self, task: Task) -> int | None:
        """Classes of a new classifier; None where the supernet of `source` was trained on these data."""
        from sartor.quality.saved import of_run
        from sartor.quality.transfer import of_data

        if of_data(of_run(str(self.source)), task):
            if self.warmup:
                raise UserError(
                    f"warmup={self.warmup} is of a new classifier, and {self.source} has one of these data, which "
                    "stays; leave it out."
                )
            return None
        if not hasattr(task, "classes"):
            raise UserError("--from replaces a classifier, and these data have no classes; leave it out.")
        return int(task.classes)

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        published = {"shift_lr": 1e-4, "per": "architecture", "calibration": 0, "valid_batches": 24}
        return super().paper(**{**published, **changes})
