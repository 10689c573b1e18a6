"""What run directories hold, read and checked; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sartor.core import METRICS, Json, UserError
from sartor.report.values import number
from sartor.runs import read_json, read_lines

_VERBS = (
    "quickstart", "targets", "measure", "fit", "search", "refine", "compress", "scale", "adapt", "train", "test",
    "export",
)  # fmt: skip
_SHAPES: dict[str, type] = {
    "budgets": list,
    "architecture": list,
    "predicted": dict,
    "measured": dict,
    "argmax": dict,
    "settings": dict,
    "space": dict,
    "files": dict,
    "rows": list,
    "points": dict,
    "choices": dict,
    "front": list,
    "profile_ms": dict,
}


@dataclass(frozen=True)
class Recorded:
    """One run as it stands on disk. result: None until it is finished; fit: what `fit.json` holds, answers what
    `search/answers.json` of a method that asks does, and front what `search/front.json` of one that looks at many
    networks does, if there is one.
    """

    path: Path
    name: str
    job: Mapping[str, Json]
    seed: int
    result: Mapping[str, Json] | None = None
    fit: Mapping[str, Json] | None = None
    answers: Mapping[str, Json] | None = None
    front: Mapping[str, Json] | None = None
    journals: Mapping[str, Sequence[Mapping[str, Json]]] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        return str(self.job.get("verb", "run"))

    def get(self, key: str) -> Json:
        """A field of the result, None where there is none."""
        return None if self.result is None else self.result.get(key)


def collect(paths: Sequence[Path]) -> list[Recorded]:
    """The runs at `paths` and one level below them, each once. Raises UserError for what is no run or is damaged."""
    if not paths:
        raise UserError("there is nothing to report on; give one or more run directories.")
    found: dict[Path, Recorded] = {}
    for path in map(Path, paths):
        for directory in _runs_at(path):
            found.setdefault(directory.resolve(), _read(directory, path))
    return [_with_measured(run, found.values()) for run in found.values()]


def _with_measured(run: Recorded, runs: Iterable[Recorded]) -> Recorded:
    """A training with what a measurement of several networks side by side says about its network."""
    if run.verb not in ("train", "test") or run.result is None:
        return run
    same = ("space", "architecture")
    members = [one for other in runs if other.verb == "measure" for one in other.get("members") or ()]
    for one in members:
        if all(one.get(key) == run.get(key) for key in same):
            values = {k: v for k, v in one.items() if k in METRICS and number(v) is not None}
            return replace(run, result={**run.result, "measured": values})
    return run


def _runs_at(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give the directory of a run.")
    below = sorted((p.parent for p in path.glob("*/run.json")), key=lambda p: p.name)
    if (path / "run.json").exists():
        yield path
    elif not below:
        raise UserError(f"{path} holds no run (there is no run.json); give the directory of a run.")
    yield from below


def _read(directory: Path, given: Path) -> Recorded:
    run = _mapping(directory / "run.json")
    if not isinstance(run.get("job"), dict) or run.get("schema") != 1:
        raise UserError(f"{directory}/run.json is not one this version reads (schema 1); give another run.")
    name = given.resolve().name if directory == given else f"{given.resolve().name}/{directory.name}"
    fit, answers, front = (
        _mapping(directory / name) if (directory / name).exists() else None
        for name in ("fit.json", "search/answers.json", "search/front.json")
    )
    return Recorded(
        directory,
        name,
        run["job"],
        int(number(run.get("seed")) or 0),
        _mapping(directory / "result.json") if (directory / "result.json").exists() else None,
        None if fit is None else _usable_fit(fit, directory / "fit.json"),
        None if answers is None else _usable_fit(answers, directory / "search/answers.json"),
        front,
        {stage: read_lines(directory / stage / "journal.jsonl") for stage in ("search", "train")},
    )


def _mapping(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict):
        raise UserError(f"{file} is damaged: it must hold an object; restore it or run the job again.")
    for key, shape in _SHAPES.items():
        if data.get(key) is not None and not isinstance(data[key], shape):
            raise UserError(f"{file} is damaged: {key} must be a {shape.__name__}; restore it or run the job again.")
    for budget in data.get("budgets") or []:
        if not isinstance(budget, dict) or not isinstance(budget.get("metric"), str) or not number(budget.get("limit")):
            raise UserError(f"{file} is damaged: a budget needs metric and limit; restore it or run the job again.")
    return data


def _usable_fit(fit: dict[str, Any], file: Path) -> dict[str, Any]:
    """`fit` with its quality in one row per region and shares in percent, and without points that are not numbers."""
    rows: list[dict[str, Any]] = []
    for row in fit.get("rows") or []:
        if not isinstance(row, dict):
            raise UserError(f"{file} is damaged: rows must hold objects; restore it or fit again.")
        if "region" in row:
            rows.append(row)
            continue
        parts = {"all": {k: v for k, v in row.items() if not k.startswith("near")}}
        near = {k.removeprefix("near_"): v for k, v in row.items() if k.startswith("near_")}
        if number(near.get("rmse")) is not None:
            parts["near"] = {**near, "predictor": row.get("predictor"), "n": row.get("near")}
        for region, values in parts.items():
            shares = {k: 100 * v for k in ("within_5", "within_10") if (v := number(values.get(k))) is not None}
            rows.append({"n": values.get("test"), **values, **shares, "region": region})
    points = fit.get("points") or {}
    predicted, measured = points.get("predicted") or {}, points.get("measured") or []
    if not isinstance(predicted, dict) or any(
        not isinstance(v, list) or len(v) != len(measured) for v in predicted.values()
    ):
        raise UserError(f"{file} is damaged: its points do not match each other; restore it or fit again.")
    whole = [
        i for i, m in enumerate(measured) if number(m) and all(number(v[i]) is not None for v in predicted.values())
    ]
    kept = {name: [values[i] for i in whole] for name, values in predicted.items()}
    return {**fit, "rows": rows, "points": {"measured": [measured[i] for i in whole], "predicted": kept}}


def order(runs: Sequence[Recorded]) -> list[Recorded]:
    """In the order of the work: measured, fitted, searched, trained, exported."""
    return sorted(runs, key=lambda run: _VERBS.index(run.verb) if run.verb in _VERBS else len(_VERBS))


def is_parent(run: Recorded, runs: Sequence[Recorded]) -> bool:
    """Whether a run only holds others."""
    return any(other.path.parent == run.path for other in runs)
