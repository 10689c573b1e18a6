"""What settings of all methods have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sartor.core.errors import UserError, unknown

if TYPE_CHECKING:
    from sartor.core.space import SearchSpace
    from sartor.core.task import Task


class Settings(BaseModel):
    """Base of all methods: frozen, and an unknown key is an error.

    weighs: a cost without a limit can be given as an objective; fronts: costs can be objectives beside quality, limits
    or not; asks: a score of quality can be one; transfers: it can begin with what another run trained; example: a
    setting that makes a first search short, of example_space within example_budget.
    """

    example: ClassVar[str] = "epochs=30"
    example_space: ClassVar[str] = "mobilenet:tiny"
    example_budget: ClassVar[str] = "0.1ms"
    weighs: ClassVar[bool] = False
    fronts: ClassVar[bool] = False
    transfers: ClassVar[bool] = False
    asks: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, paper: bool = False) -> Self:
        """Settings from text or data, on top of the defaults or of the published values.

        Raises UserError, in one line, for an unknown key or a value that does not fit.
        """
        for key in values:
            if key not in cls.model_fields:
                raise unknown("setting", key, cls.model_fields)
        try:
            return cls.paper(**values) if paper else cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"])) or "settings"
            raise UserError(f"setting {name}={first['input']!r}: {first['msg']}; change it.") from None

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Every hyper-parameter as published; `changes` on top."""
        return cls(**changes)

    def sensible(self, limits: int, objectives: int) -> None:
        """Raise UserError for settings that do not go together, or not with so many budgets and costs to weigh.

        It needs neither space nor scores, so that nothing has to be measured before.
        """

    def follows(self, space: SearchSpace) -> None:
        """Raise UserError where what it begins with is of another space; no data are needed."""

    def suits(self, space: SearchSpace, task: Task) -> None:
        """Raise UserError for settings that this space or these data do not allow, before anything is measured."""


def trains_logits(epochs: int, warmup_epochs: int) -> None:
    if epochs <= warmup_epochs:
        raise UserError(
            f"epochs={epochs} trains no logits; give more than warmup_epochs={warmup_epochs}, or lower that with "
            "--set warmup_epochs=..."
        )
