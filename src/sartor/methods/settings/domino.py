"""Settings of Domino."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from sartor.core.errors import UserError
from sartor.methods.settings.base import Settings

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace
    from sartor.core.task import Task


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
        description="of the evolution, where networks are too many to be looked at (ours)",
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
