"""What every predictor does: check what it is fitted on, predict for architectures and gates, save and load."""

from __future__ import annotations

import inspect
import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sartor.core import F, Json, Metric, SearchSpace, SoftScore, UserError, metric
from sartor.runs import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
_HEADER = "sartor"
_KEYS = {"predictor", "space", "space_id", "target_id", "metric", "hyper", "stats"}


class Predictor(SoftScore):
    """A score fitted on architectures and their values. Hyper-parameters are the constructor's arguments.

    target_id: what the values were measured on; stats: JSON about the fit (`train`, `dropped`, `rmse_train` in the
    metric's unit, and what the predictor adds).
    """

    key: ClassVar[str]
    target_id: str | None = None

    def __init__(self) -> None:
        self.stats: dict[str, Json] = {}

    # ------------------------------------------------------------------ what a predictor defines

    @abstractmethod
    def _fit(self, archs: Sequence[Sequence[int]], values: F) -> dict[str, Json]:
        """Learn from finite values of canonical architectures; `space` and `metric` are set. Returns extra stats."""

    @abstractmethod
    def _predict(self, archs: Sequence[Sequence[int]]) -> F:
        """(n,) values of canonical architectures."""

    @abstractmethod
    def _arrays(self) -> dict[str, F]:
        """Everything learned, as arrays."""

    @abstractmethod
    def _restore(self, arrays: dict[str, F]) -> None:
        """Take back what `_arrays` gave; `space` and `metric` are set."""

    # ------------------------------------------------------------------ fitting and predicting

    def fit(
        self,
        space: SearchSpace,
        archs: Sequence[Sequence[int]],
        values: Sequence[float] | F,
        *,
        metric: Metric,
        target_id: str | None = None,
    ) -> Self:
        """Fit on measured values (n,) in the metric's unit; NaN, a failure, is dropped and counted.

        Raises UserError when the lengths differ or fewer than two numbers are left.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (len(archs),):
            raise UserError(f"there are {len(archs)} architectures and {numbers.size} values; give one value for each.")
        whole = np.isfinite(numbers)
        if whole.sum() < 2:
            raise UserError(
                f"only {int(whole.sum())} of {len(archs)} values are numbers; a predictor needs two: measure again."
            )
        known = space.canonicals([arch for arch, ok in zip(archs, whole) if ok])
        self.space, self.metric, self.target_id = space, metric, target_id
        extra = self._fit(known, numbers[whole])
        error = self._predict(known) - numbers[whole]
        self.stats = {
            "train": len(known),
            "dropped": int((~whole).sum()),
            "rmse_train": math.sqrt(float(np.mean(error**2))),
            **extra,
        }
        return self

    def __call__(self, archs: Sequence[Sequence[int]]) -> F:
        self._fitted()
        return self._predict(self.space.canonicals(archs))

    def trusting(self, archs: Sequence[Sequence[int]]) -> F:
        """The same of architectures that are known to be canonical: checking takes longer than most predictions."""
        return self._predict(archs)

    def _fitted(self) -> None:
        if not hasattr(self, "space"):
            raise UserError(f"predictor {self.key!r} is not fitted yet; call fit or load a saved one.")

    def hyper(self) -> dict[str, Json]:
        """Hyper-parameters by name: the constructor's arguments that are kept under their own name."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self" and hasattr(self, name)}

    # ------------------------------------------------------------------ saving

    def save(self, path: Path | str) -> None:
        """One safetensors file, written atomically; its header holds schema, space, target and hyper-parameters."""
        from safetensors.numpy import save

        self._fitted()
        path = Path(path)
        if path.suffix != ".safetensors":
            raise UserError(f"a predictor is saved as .safetensors, not as {path.name!r}; change the name.")
        header = {
            "schema": SCHEMA,
            "predictor": self.key,
            "space": self.space.spec(),
            "space_id": self.space.id,
            "target_id": self.target_id,
            "metric": self.metric.name,
            "hyper": self.hyper(),
            "stats": self.stats,
        }
        arrays = {name: np.ascontiguousarray(a) for name, a in self._arrays().items()}
        write_atomic(path, save(arrays, metadata={_HEADER: json.dumps(header, sort_keys=True)}))

    def restore(self, path: Path, header: dict[str, Json], space: SearchSpace) -> None:
        """Take the learned state from a file whose header was checked; `load` calls this."""
        from safetensors.numpy import load_file

        self.space, self.metric, self.target_id = space, metric(header["metric"]), header["target_id"]
        self.stats = header["stats"]
        self._restore(load_file(path))


def read_header(path: Path | str) -> dict[str, Any]:
    """What a saved predictor says about itself: predictor, space, space_id, target_id, metric, hyper, stats.

    Raises UserError when the file is missing, damaged, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no predictor {path}; check the path or fit one.")
    try:
        with safe_open(path, framework="np") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_HEADER])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no predictor of sartor ({error}); fit it again.") from None
    if not isinstance(header, dict):
        raise UserError(f"{path} is damaged: its header holds no object; fit it again.")
    if header.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {header.get('schema')!r}, this version reads {SCHEMA}; fit it again.")
    missing = sorted(_KEYS - header.keys())
    if missing:
        raise UserError(f"{path} is damaged: its header lacks {', '.join(missing)}; fit it again.")
    return header


def soft_row(space: SearchSpace, gates: tuple[Tensor, ...]) -> Tensor:
    """(total candidates,) soft one-hot row: gates of slots that may not exist are weighted with their chance to."""
    import torch

    from sartor.core.score import active_gates

    return torch.cat(active_gates(space.slots, gates))
