"""How a network is trained, as data; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sartor.core.errors import UserError, unknown
from sartor.core.types import Optimiser

Precision: TypeAlias = Literal["32-true", "bf16-mixed"]
_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "warmup_lr": 0.01, "weight_decay": 5e-4},
    "adamw": {"lr": 1e-3, "warmup_lr": 1e-5, "weight_decay": 0.01},
}


def _by_optimiser(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda known: _DEFAULTS[known.get("optimiser", "sgd")][name]


def usual_warmup(epochs: int) -> float:
    """Epochs of warm-up that do where nothing is known: 1, at most a tenth."""
    return min(1.0, epochs / 10)


class Recipe(BaseModel):
    """SGD or AdamW with warm-up and a cosine; the defaults suit small data sets, and depend on the optimiser."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=30, ge=1, description="passes over the training data")
    batch_size: int = Field(default=128, ge=1, description="examples per step")
    optimiser: Optimiser = Field(default="sgd", description="sgd or adamw; `sartor train` takes that of the space")
    lr: float = Field(
        default_factory=_by_optimiser("lr"), gt=0, description="after the warm-up; default: 0.1, adamw 1e-3"
    )
    warmup_epochs: float | None = Field(
        default=None,
        ge=0,
        description="epochs from warmup_lr up to lr, linearly; default: 1, at most a tenth of epochs",
    )
    warmup_lr: float = Field(
        default_factory=_by_optimiser("warmup_lr"),
        ge=0,
        description="learning rate of the first step, where there is a warm-up; default: 0.01, adamw 1e-5",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the gradient, adamw too")
    nesterov: bool = Field(default=False, description="of sgd")
    weight_decay: float = Field(
        default_factory=_by_optimiser("weight_decay"), ge=0, description="default: 5e-4, adamw 0.01, times lr"
    )
    decay_bias_and_norm: bool = Field(default=False, description="weight decay also on biases and normalisation layers")
    label_smoothing: float | None = Field(default=None, ge=0, lt=1, description="default: as the task has it")
    distil: float = Field(default=0.5, ge=0, le=1, description="share of the loss that a teacher has, if there is one")
    temperature: float = Field(default=4.0, gt=0, description="that logits are divided by beside a teacher's")
    clip_norm: float | None = Field(default=5.0, gt=0, description="largest norm of the gradient; none: any")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="default: as the network has it")
    precision: Precision = Field(default="32-true", description="arithmetic of the network")
    evaluate_every: int = Field(default=1, ge=0, description="epochs between evaluations; 0: only at the end")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup:g} must be below epochs={self.epochs}")
        if self.nesterov and self.optimiser != "sgd":
            raise ValueError(f"nesterov is for optimiser=sgd, not for {self.optimiser}")
        return self

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        return usual_warmup(self.epochs) if self.warmup_epochs is None else self.warmup_epochs

    @classmethod
    def paper(cls, method: str = "lightnas", **changes: Any) -> Recipe:
        """How LightNAS (thesis 4.4.1), SurgeNAS (3.4.1) or Domino (5.4.1) trains its results on ImageNet.

        360 (SurgeNAS: 400, Domino: 180) epochs of 1,024 images, 5 of them up to 0.5, then a cosine to 0; weight decay
        4e-5 (SurgeNAS: 3e-5). From the code of LightNAS: smoothing, clipping, no decay of biases and norms; Domino has
        nothing of that. Raises UserError for a method that publishes no recipe. `changes` go on top.
        """
        published = cls(
            optimiser="sgd",
            epochs=360,
            batch_size=1024,
            lr=0.5,
            warmup_epochs=5,
            warmup_lr=0.1,
            momentum=0.9,
            weight_decay=4e-5,
            decay_bias_and_norm=False,
            label_smoothing=0.1,
            clip_norm=5.0,
            dropout=0.2,
        )
        plain = {"label_smoothing": 0.0, "clip_norm": None, "dropout": 0.0, "decay_bias_and_norm": True}
        own: dict[str, dict[str, Any]] = {
            "lightnas": {},
            "lightnas-channels": {},
            "surgenas": {"epochs": 400, "weight_decay": 3e-5},
            "domino": {"epochs": 180, **plain},
        }
        if method not in own:
            raise UserError(f"{method} publishes no recipe of its own ({', '.join(own)} do); leave out --paper.")
        published = published.override(own[method])
        return published.override(changes)

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """This recipe with some values replaced, and the defaults that follow from them.

        Raises UserError, in one line, for unknown keys and bad values.
        """
        for key in values:
            if key not in Recipe.model_fields:
                raise unknown("recipe key", key, Recipe.model_fields)
        try:
            return Recipe.model_validate({**self.model_dump(exclude_unset=True), **values})
        except ValidationError as error:
            first = error.errors()[0]
            given = f"{first['loc'][0]}={first['input']!r}: " if first["loc"] else ""
            reason = first["msg"].removeprefix("Value error, ")
            raise UserError(f"recipe: {given}{reason}; change it.") from None
