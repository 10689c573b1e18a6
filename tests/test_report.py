"""The report: figures from plain data, the page, honest words, what is missing, and bad input."""

from __future__ import annotations

import contextlib
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
from sartor.report.collect import collect
from sartor.report.style import svg
from sartor.report.words import trained, verdict
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
        share = np.full((len(ARCH), 7), (1 - t) * 1000 / 7)
        share[np.arange(len(ARCH)), ARCH] += 1000 * t
        line["permille"] = share.round().astype(int).tolist()
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


# ---------------------------------------------------------------------- the page


def test_a_quickstart_shows_every_figure_and_every_setting(tmp_path: Path) -> None:
    page = shown(write_quickstart(tmp_path / "quickstart"))
    assert page.counts["svg"] == 6
    for words in (
        "The network found keeps its budget of 20 ms and is 1.5 points more accurate than the baseline",
        "predicted to need 19.94 ms (0.30 % under) and was measured at 19.88 ms (0.60 % under)",
        "Trained for 30 epochs, it reaches 76.4 % accuracy",
        "uniform MobileNetV2 x0.75 reaches 74.9 % at equal measured latency (+1.2 %)",
        "The network",
        "21 searched layers, 4 of them skipped",
        "share of 406.2 MMACs",
        "How the search got there",
        "most likely",
        "landed, predicted 19.94 ms",
        "multiplier λ",
        "warm-up",
        "Accuracy against measured latency",
        "How well latency is predicted",
        "predicted latency (ms)",
        "within 5 %",
        "97 %",
        "training loss",
        "accuracy (%)",
        "export/network.onnx",
        "16.9 MB",
        TARGET,
        "0.17 ms, RMSE between two passes",
        "settings.warmup_epochs 8",
        "recipe.weight_decay 0.0005",
        "choices.layer5 skip",
    ):
        assert words in page.text, words
    assert "Not in these runs" not in page.text


def test_the_page_is_self_contained_and_the_same_each_time(tmp_path: Path) -> None:
    run = write_quickstart(tmp_path / "quickstart")
    source = report([run], tmp_path / "a.html").read_text()
    assert re.findall(r"https?://[^\"' )]*", source.replace("http://www.w3.org/2000/svg", "")) == []
    assert not re.search(r"<script|<link|<iframe|@import|<image|\bsrc=", source)
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert {ref for ref in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', source) for ref in ref if ref} <= set(ids)
    assert report([run], tmp_path / "b.html").read_text() == source
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source


def test_names_are_escaped(tmp_path: Path) -> None:
    run = tmp_path / "quick & <b>start</b>"
    write_train(run / "other", '<script>alert("x")</script>', 70.0, 25.0)
    source = report([run], tmp_path / "page.html").read_text()
    assert "<script" not in source
    assert "<b>start" not in source
    assert "&lt;script&gt;" in source
    Page(source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"measured": 20.32, "ours": 74.1},
            "Predicted within its budget of 20 ms, the network measures 1.6 % over it and is 0.8 points less accurate",
        ),
        ({"ours": 74.1}, "keeps its budget of 20 ms, but is 0.8 points less accurate than the baseline"),
        (
            {"predicted": 21.3, "measured": 21.5},
            "missed its budget of 20 ms: the best it found is predicted 6.5 % over, but is 1.5 points more accurate "
            "than the baseline, which is 6 % faster",
        ),
        ({"measured": None}, "keeps its budget of 20 ms as predicted; it was not measured"),
        ({"ours": 74.9}, "is as accurate as the baseline"),
    ],
)
def test_the_headline_is_honest(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    runs = collect([write_quickstart(tmp_path / "quickstart", **changes)])
    search = next(run for run in runs if run.verb == "search")
    assert words in verdict(search, trained(runs))


@pytest.mark.parametrize(("tested", "chance"), [(359, True), (50_000, False)])
def test_a_difference_that_the_test_set_cannot_show_is_called_chance(tmp_path: Path, tested: int, chance: bool) -> None:
    quickstart = write_quickstart(tmp_path / "quickstart")
    for file in quickstart.glob("*/result.json"):
        result = json.loads(file.read_text())
        if result["verb"] == "train":
            file.write_text(json.dumps({**result, "data": {"data": "digits", "examples": {"test": tested}}}))
    runs = collect([quickstart])
    said = verdict(next(run for run in runs if run.verb == "search"), trained(runs))
    assert ("within chance on 359 test images" in said) == chance


def test_sittings_that_disagree_are_both_told(tmp_path: Path) -> None:
    run = write_quickstart(tmp_path / "quickstart", measured=20.7)
    write_train(run / "train", "found", 76.4, 19.7, found=True)
    write_train(run / "baseline", "uniform", 74.9, 21.0)
    text = shown(run).text
    assert (
        "the network measures between 1.5 % under and 3.5 % over it, but is 1.5 points more accurate than the baseline"
        in text
    )
    assert "In another sitting it was measured at 19.7 ms (1.5 % under)" in text
    assert "uniform reaches 74.9 % at 7 % higher measured latency" in text, "what was measured side by side counts"
    write_train(run / "train", "found", 76.4, 20.9, found=True)
    write_search(run / "search", measured=19.9)
    runs = collect([run])
    search = next(one for one in runs if one.verb == "search")
    assert "measures between 0.50 % under and 4.5 % over it" in verdict(search, trained(runs))


def test_several_budgets_and_two_sided_ones(tmp_path: Path) -> None:
    budgets = [
        {"metric": "energy_mj", "limit": 1.5, "unit": "mJ", "sense": "at_most"},
        {"metric": "macs", "limit": 3.2e8, "unit": "MACs", "sense": "at"},
    ]
    costs = {"predicted": {"energy_mj": 1.49, "macs": 3.21e8}, "measured": {"energy_mj": 1.48, "latency_ms": 19.0}}
    write_search(tmp_path / "a", budgets=budgets, feasible=True, argmax=costs)
    result = json.loads((tmp_path / "a/result.json").read_text())
    write(tmp_path / "a/result.json", {**result, **costs})
    text = shown(tmp_path / "a").text
    assert "The network found keeps its budgets of 1.5 mJ and 320 MMACs" in text
    assert "needs exactly 321 MMACs (0.31 % over)" in text
    assert "energy (mJ)" in text
    assert "MACs (M)" in text
    assert "no budget on it" in text


def test_several_searches_have_a_sentence_each(tmp_path: Path) -> None:
    write_search(tmp_path / "one")
    write_search(tmp_path / "two", predicted=22.0)
    text = shown(tmp_path / "one", tmp_path / "two", tmp_path / "one").text
    assert "2 searches, 1 of them within budget" in text
    assert "two: The search missed its budget" in text


# ---------------------------------------------------------------------- what is missing


def test_an_unfinished_search_shows_its_course_so_far(tmp_path: Path) -> None:
    write_search(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    text = shown(tmp_path / "run").text
    assert "The search has not finished" in text
    assert "this is its course so far" in text
    assert "budget 20 ms" in text
    assert "no architecture" in text


def test_missing_pieces_are_said(tmp_path: Path) -> None:
    write_search(tmp_path / "run/search", space={"space": "of-tomorrow"}, measured=None, target=None)
    (tmp_path / "run/search/search/journal.jsonl").unlink()
    write_fit(tmp_path / "run/fit")
    fit = json.loads((tmp_path / "run/fit/fit.json").read_text())
    write(tmp_path / "run/fit/fit.json", {k: v for k, v in fit.items() if k not in ("points", "rows", "noise_floor")})
    write_train(tmp_path / "run/train", "plain", 70.0, None)
    write_train(tmp_path / "run/later", "later", 70.0, None, finished=False)
    (tmp_path / "run/train/train/journal.jsonl").unlink()
    text = shown(tmp_path / "run").text
    for words in (
        "has no journal of its search",
        "cannot be drawn: unknown space 'of-tomorrow'",
        "no held-out points",
        "no figures of quality",
        "was not measured",
        "Without a measured latency (or with another metric), so not in the figure: plain",
        "No training journal: plain",
        "Training has not finished: run/later",
        "not trained in these runs",
    ):
        assert words in text, words


def test_runs_without_search_fit_or_training(tmp_path: Path) -> None:
    write_run(tmp_path / "m", "measure", {"space": SPACE}, {"networks": 100, "succeeded": 99, "failed": 1})
    text = shown(tmp_path / "m").text
    for words in ("no trajectory", "None of these runs fitted", "No trained network", "name no target", "networks 100"):
        assert words in text, words
    write_train(tmp_path / "t", "plain", 70.0, 12.0)
    assert "plain reaches 70.0 % accuracy" in shown(tmp_path / "t").text
    write_fit(tmp_path / "f")
    assert "Predictor mlp of latency, fitted to 1000 measured networks" in shown(tmp_path / "f").text


def test_rows_by_region_are_read_as_percent(tmp_path: Path) -> None:
    write_fit(tmp_path / "f")
    fit = json.loads((tmp_path / "f/fit.json").read_text())
    fit["rows"] = [{"predictor": "mlp", "region": "near", "n": 12, "rmse": 0.2, "within_5": 91.7, "kendall": math.nan}]
    write(tmp_path / "f/fit.json", fit)
    text = shown(tmp_path / "f").text
    assert "near the budget 12 – – 0.2 – 92 % –" in text


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.write_text("x"), "is a file"),
        (lambda p: p.mkdir(), "holds no run"),
        (lambda p: write(p / "run.json", [1]), "must hold an object"),
        (lambda p: write(p / "run.json", {"schema": 2, "job": {}}), "not one this version reads"),
        (lambda p: (write_search(p), (p / "result.json").write_text("{")), "damaged or not JSON"),
        (lambda p: write_search(p, budgets=[3]), "budget needs metric and limit"),
        (lambda p: write_search(p, predicted=19.0, settings=3), "settings must be a dict"),
        (lambda p: (write_search(p), (p / "search/journal.jsonl").write_text("{\n")), "damaged"),
        (lambda p: (write_search(p), (p / "search/journal.jsonl").write_text("3\n")), "a line is no object"),
        (
            lambda p: (write_fit(p), write(p / "fit.json", {"points": {"measured": [1], "predicted": {"a": 2}}})),
            "points",
        ),
        (lambda p: (write_fit(p), write(p / "fit.json", {"rows": [2]})), "rows must hold objects"),
    ],
)
def test_bad_runs_are_one_line(tmp_path: Path, make: Any, words: str) -> None:
    with contextlib.suppress(TypeError):  # the fixture cannot journal such budgets; what it wrote before will do
        make(tmp_path / "run")
    with pytest.raises(UserError, match=words) as error:
        report([tmp_path / "run"], tmp_path / "page.html")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "page.html").exists()


def test_nothing_to_report_on_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report on"):
        report([], tmp_path / "page.html")
    write_run(tmp_path / "m", "measure", {}, {"networks": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        report([tmp_path / "m"], tmp_path / "file" / "page.html")


# ---------------------------------------------------------------------- figures from plain data


def test_the_trajectory_marks_budget_and_landing() -> None:
    budget = {"metric": "latency_ms", "limit": LIMIT, "sense": "at_most"}
    lines = [{"event": "epoch", **line} for line in search_journal({"latency_ms": LIMIT})]
    figure = figures.trajectory(lines, [budget], {"latency_ms": 19.94})
    cost = figure.axes[0]
    assert [ax.get_ylabel() for ax in figure.axes] == ["latency (ms)", "multiplier λ", "loss"]
    drawn = {line.get_label(): np.asarray(line.get_ydata(), float) for line in cost.lines}
    assert drawn["landed, predicted 19.94 ms"] == pytest.approx([19.94])
    assert drawn["budget 20 ms"] == pytest.approx([20.0, 20.0])
    assert len(drawn["most likely"]) == EPOCHS


def test_a_trajectory_without_losses_or_multiplier() -> None:
    lines = [{"event": "epoch", "epoch": 0, "macs": 3e8}, {"event": "note"}]
    figure = figures.trajectory(lines, [{"metric": "macs", "limit": 3.2e8}])
    assert [ax.get_ylabel() for ax in figure.axes] == ["MACs (M)"]


def test_names_in_the_tradeoff_do_not_overlap() -> None:
    rng = np.random.default_rng(3)
    points = [
        {"name": f"network {i}", "cost": 20 + c, "value": 70 + v, "cost_metric": "latency_ms", "metric": "accuracy"}
        for i, (c, v) in enumerate(rng.random((8, 2)))
    ]
    figure = figures.tradeoff(points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_architectures_of_any_length_are_drawn() -> None:
    short, long = get("mobilenet:tiny"), get("mobilenet:cifar", layers=40)
    assert len(figures.architecture(short, [0] * 9).axes) == 2
    assert len(figures.architecture(long, [6, 1] * 20).axes) == 4
    uniform = svg(figures.architecture(get("uniform:tiny"), [0, 0]), "uniform")
    assert "kernel" in uniform


def test_figures_leave_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    curve = [{"event": "epoch", "epoch": i, "loss": 1.0 / i} for i in range(1, 4)]
    svg(figures.training_curves({"a": curve}), "curves")
    assert dict(matplotlib.rcParams) == before
