"""The report: figures from plain data, the page, honest words, what is missing, and bad input."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartor.core import UserError
from sartor.report import figures, report
from sartor.report.style import svg
from sartor.spaces import from_spec, get

TARGET = "onnxruntime-1.20-cpu|Example CPU @ 2.0 GHz|threads=1|batch=1|fp32"
SPACE = {"space": "mobilenet", "preset": "lightnas"}
ARCH = [1, 3, 5, 0, 6, 3, 1, 4, 6, 5, 3, 6, 1, 5, 5, 3, 6, 1, 4, 5, 3]
EPOCHS, WARM, LIMIT = 60, 8, 20.0


# ---------------------------------------------------------------------- run directories as the command line writes them


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"event": "epoch", **line}) + "\n" for line in lines))


def head(verb: str, path: Path) -> dict[str, Any]:
    return {"verb": verb, "run": str(path), "seed": 0, "seconds": 41.5, "sartor_version": "0.1.0"}


def write_run(path: Path, verb: str, job: dict[str, Any], result: dict[str, Any] | None) -> None:
    write(path / "run.json", {"schema": 1, "job": {"verb": verb, **job}, "seed": 0})
    if result is not None:
        write(path / "result.json", {**head(verb, path), **result})


def search_journal(names: dict[str, float]) -> list[dict[str, Any]]:
    rng, lines = np.random.default_rng(0), []
    for epoch in range(EPOCHS):
        t = max(0, epoch - WARM) / (EPOCHS - WARM)
        line: dict[str, Any] = {"epoch": epoch, "temperature": 5 * math.exp(-8 * t), "loss": 1.1 + 3 * math.exp(-3 * t)}
        line["loss"] += 0.05 * rng.standard_normal()
        if epoch >= WARM:
            line["valid_loss"] = 1.25 + 2.9 * math.exp(-3.3 * t) + 0.05 * rng.standard_normal()
        for name, limit in names.items():
            expected = limit * (1 + 0.28 * math.exp(-6 * t))
            cost = expected * (1 + 0.14 * (1 - t) ** 1.5 * rng.standard_normal())
            line |= {name: cost, f"expected_{name}": expected, f"gap_percent_{name}": (cost / limit - 1) * 100}
            line[f"multiplier_{name}"] = 0.9 * (1 - math.exp(-4 * t)) + 0.03 * rng.standard_normal() * (t > 0)
        lines.append(line)
    return lines


def write_search(path: Path, *, predicted: float = 19.94, measured: float | None = 19.88, **changes: Any) -> None:
    space = from_spec(SPACE)
    settings = {"epochs": EPOCHS, "warmup_epochs": WARM, "arch_lr": None, "controller": "settling"}
    result: dict[str, Any] = {
        "method": "lightnas",
        "space": space.spec(),
        "architecture": ARCH,
        "choices": space.to_json(ARCH)["choices"],
        "target": TARGET,
        "budgets": [{"metric": "latency_ms", "limit": LIMIT, "unit": "ms", "sense": "at_most"}],
        "predicted": {"latency_ms": predicted},
        "measured": {"latency_ms": measured},
        "gap_percent": {"latency_ms": (predicted / LIMIT - 1) * 100},
        "measured_gap_percent": {} if measured is None else {"latency_ms": (measured / LIMIT - 1) * 100},
        "argmax": {
            "architecture": ARCH,
            "predicted": {"latency_ms": 20.31},
            "measured": {"latency_ms": 20.4},
            "gap_percent": {"latency_ms": 1.55},
        },
        "landing": "optimal",
        "feasible": predicted <= LIMIT,
        "settings": settings,
    }
    result |= changes
    job = {"method": "lightnas", "space": space.spec(), "target": TARGET, "data": "digits", "settings": settings}
    write_run(path, "search", job, result)
    write_lines(path / "search/journal.jsonl", search_journal({b["metric"]: b["limit"] for b in result["budgets"]}))


def write_fit(path: Path, names: tuple[str, ...] = ("ridge", "mlp")) -> None:
    rng = np.random.default_rng(1)
    measured = rng.uniform(12, 34, 120)
    error = {"ridge": 0.032, "mlp": 0.011, "lookup": 0.05}
    rows = []
    for name in names:
        row: dict[str, Any] = {"predictor": name, "train": 800, "test": 200, "near": 33.0, "default": name == "mlp"}
        for prefix, scale in (("", 1.0), ("near_", 0.8)):
            row |= {f"{prefix}rmse": 22 * error[name] * scale, f"{prefix}mae": 17 * error[name] * scale}
            row |= {f"{prefix}kendall": 0.93, f"{prefix}spearman": 0.991}
            row |= {f"{prefix}within_5": 0.97 if name == "mlp" else 0.88, f"{prefix}within_10": 1.0}
        rows.append(row)
    fit = {
        "metric": "latency_ms",
        "unit": "ms",
        "target": TARGET,
        "space": from_spec(SPACE).spec(),
        "default": "mlp" if "mlp" in names else names[0],
        "noise_floor": 0.17,
        "samples": 1000,
        "failed": 2,
        "rows": rows,
        "points": {
            "measured": measured.tolist(),
            "predicted": {n: (measured * (1 + error[n] * rng.standard_normal(120))).tolist() for n in names},
        },
    }
    write(path / "fit.json", fit)
    job = {"space": fit["space"], "target": TARGET, "samples": 1000, "predictor": "auto", "metric": "latency_ms"}
    write_run(path, "fit", job, {"predictor": fit["default"], **{k: fit[k] for k in ("space", "target", "rows")}})


def write_train(
    path: Path, name: str, value: float, latency: float | None, *, found: bool = False, finished: bool = True
) -> None:
    space = from_spec(SPACE) if found else get("uniform:lightnas", widths=[0.75])
    arch = ARCH if found else [0, 0]
    recipe = {"epochs": 30, "lr": 0.1, "weight_decay": 5e-4}
    lines: list[dict[str, Any]] = []
    for epoch in range(1, 31):
        line = {"epoch": epoch, "loss": 0.35 + 2.2 * math.exp(-epoch / 6), "lr": 0.1}
        if epoch % 3 == 0:
            line["accuracy"] = value - 30 * math.exp(-epoch / 5)
        lines.append(line)
    write_lines(path / "train/journal.jsonl", lines)
    result = {
        "name": name,
        "metric": "accuracy",
        "value": value,
        "loss": 0.9,
        "epochs": 30,
        "macs": 4.062e8 if found else 3.8e8,
        "params": 4.2e6 if found else 3.1e6,
        "space": space.spec(),
        "architecture": arch,
        "data": "imagefolder:pictures?classes=100",
        "measured": None if latency is None else {"latency_ms": latency},
        "target": TARGET,
        "settings": recipe,
    }
    write_run(path, "train", {"name": name, "recipe": recipe}, result if finished else None)


def write_export(path: Path) -> None:
    files = {
        "onnx": {"path": "export/network.onnx", "bytes": 16_912_345, "max_abs_error": 3.1e-6},
        "safetensors": {"path": "export/network.safetensors", "bytes": 16_800_001, "max_abs_error": 0.0},
    }
    write_run(path, "export", {"formats": list(files)}, {"files": files})


def write_quickstart(path: Path, *, ours: float = 76.4, theirs: float = 74.9, **search: Any) -> Path:
    write_run(path, "quickstart", {"target": TARGET}, None)
    write_fit(path / "fit")
    write_search(path / "search", **search)
    write_train(path / "train", "found", ours, search.get("measured", 19.88), found=True)
    write_train(path / "baseline", "uniform MobileNetV2 x0.75", theirs, 20.12)
    write_export(path / "export")
    return path


# ---------------------------------------------------------------------- reading the page


class Page(HTMLParser):
    """Text of a page, and whether its tags nest."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def shown(*paths: Path) -> Page:
    return Page(report(paths, paths[0].parent / "page.html").read_text())
