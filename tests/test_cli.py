"""The command line: light to import, one JSON object, the whole way on a small space, killed and continued."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kendalltau

from sartor import cli, spaces, targets, tasks
from sartor.core import metric
from sartor.predictors.ridge import Ridge
from sartor.runs import read_json, read_lines, write_json
from sartor.spaces.complexity import Complexity
from sartor.workflow.searching import budgets_of_run
from tests.fakes import additive

ROOT = Path(__file__).parents[1]
TINY = "mobilenet:tiny?width=0.5"
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "matplotlib", "lightning", "ray", "scipy", "pandas", "sklearn")
STABLE = {"verb", "run", "seed", "seconds", "sartor_version"}
FOUND = {"space", "architecture", "budgets", "predicted", "measured", "gap_percent", "measured_gap_percent"}
FOUND |= {"argmax", "landing", "feasible"}
SMALL = ["--set", "epochs=2", "--set", "warmup_epochs=1", "--set", "batch_size=64"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # killed child processes have one as well
    yield
    torch.set_num_threads(before)


def sartor(*words: object) -> tuple[int, str, str]:
    """Run the command line here: exit code, stdout, stderr."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["sartor", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as done:
            cli.main()
    finally:
        sys.argv = argv
    return int(done.value.code or 0), out.getvalue(), err.getvalue()


def strict(text: str) -> dict[str, Any]:
    """Exactly one JSON object, without NaN or infinity."""

    def no(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert text.endswith("\n")
    data = json.loads(text, parse_constant=no)
    assert isinstance(data, dict)
    return data


def done(*words: object) -> dict[str, Any]:
    code, out, err = sartor(*words, "--json")
    assert code == 0, err
    return strict(out)


# ---------------------------------------------------------------------- light


@pytest.mark.parametrize(
    "code",
    [
        "import sartor",
        "import sartor.cli",
        "sys.argv = ['sartor', '--help']; from sartor.cli import main; main()",
        "sys.argv = ['sartor', 'search', 'lightnas', '--help']; from sartor.cli import main; main()",
        "sys.argv = ['sartor', 'train', '--help']; from sartor.cli import main; main()",
        "sys.argv = ['sartor', 'serach']; from sartor.cli import main; main()",
    ],
)
def test_looking_around_imports_nothing_heavy(code: str) -> None:
    tail = f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    script = f"import sys, atexit\natexit.register(lambda: {tail})\n{code}"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode in (0, 2)
    assert found.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [*([verb] for verb in cli.VERBS), ["search", "lightnas"]], ids=" ".join)
def test_every_verb_shows_an_example(words: list[str]) -> None:
    code, out, err = sartor(*words, "--help")
    assert code == 0
    assert err == ""
    assert f"Example: sartor {' '.join(words)}" in " ".join(out.split())


def test_help_lists_every_verb_and_every_setting() -> None:
    text = sartor("--help")[1]
    assert all(verb in text for verb in cli.VERBS)
    from sartor.methods import SETTINGS

    for method, settings in SETTINGS.items():
        shown = sartor("search", method, "--help")[1]
        assert all(f"{name} = " in shown for name in settings.model_fields)


def test_spaces_and_targets_are_described() -> None:
    assert "mobilenet" in done("spaces")["spaces"]
    one = done("spaces", TINY)
    assert STABLE & one.keys() == {"verb"}
    assert one["size"] == 7**9
    assert one["macs_range"][0] < one["macs_range"][1]
    named = {row["target"]: row for row in done("targets")["targets"]}
    assert "latency_ms" in named["onnxruntime:cpu"]["metrics"]
    assert all("id" in row or "error" in row for row in named.values())
    code, out, _ = sartor("spaces", TINY)
    assert code == 0
    assert "size" in out


# ---------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place, before = tmp_path_factory.mktemp("cli"), Path.cwd()
    os.chdir(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARTOR_STORE", str(place / "store.db"))
        patch.setenv("SARTOR_PROGRESS", "0")
        yield place
    os.chdir(before)


def target(place: Path) -> str:
    return f"onnxruntime:cpu?cache={place / 'parts'}"


@pytest.fixture(scope="module")
def flow(place: Path) -> dict[str, tuple[list[object], dict[str, Any]]]:
    """Words and result of every verb, from measuring to a page."""
    way: dict[str, tuple[list[object], dict[str, Any]]] = {}

    def go(verb: str, *words: object) -> dict[str, Any]:
        line = [*verb.split(), *words]
        if verb != "report":
            line += ["--run", place / verb.partition(" ")[0]]
        way[verb.partition(" ")[0]] = line, done(*line)
        return way[verb.partition(" ")[0]][1]

    common = ["--target", target(place)]
    go("measure", "--space", TINY, "--samples", 12, *common)
    fit = go("fit", "--space", TINY, "--samples", 16, "--predictor", "ridge", "--near", "0.1ms", *common)
    macs = done("spaces", TINY)["macs_range"]
    limits = ["--budget", f"{(macs[0] + macs[1]) / 2e6}MMACs", "--budget", "1s"]
    go("search lightnas", "--space", TINY, *limits, "--predictor", fit["file"], *SMALL, *common)
    go("train", place / "search", "--set", "epochs=2", "--name", "mine")
    go("export", place / "train")
    go("scale", place / "search", "--step", 0.5, "--most", 2, *common)
    evolve = [w for s in ("iterations=2", "population=6", "keep=3", "batches=2", "tolerance=0.1") for w in ("--set", s)]
    fitted = ["--samples", 16, "--predictor", "ridge", "--recipe", "epochs=1"]
    go("refine", place / "search", *fitted, *evolve, *common)
    go("report", place, "--out", place / "page.html")
    return way


def test_every_result_is_one_object_with_the_stable_keys(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    for verb in ("measure", "fit", "search", "train", "export", "scale", "refine"):
        result = flow[verb][1]
        assert result.keys() >= STABLE
        assert (result["verb"], result["run"], result["seed"]) == (verb, str(place / verb), 0)
        stored = read_json(place / verb / "result.json")
        assert stored == result
    assert (flow["measure"][1]["networks"], flow["measure"][1]["failed"]) == (12, 0)
    assert {row["predictor"] for row in flow["fit"][1]["rows"]} == {"ridge"}


def test_a_search_says_what_it_found_and_how_far_from_the_budget(
    flow: dict[str, tuple[list[object], dict[str, Any]]],
) -> None:
    found = flow["search"][1]
    assert found.keys() >= FOUND
    space = spaces.get(TINY)
    assert found["space"] == space.spec()
    assert list(space.canonical(found["architecture"])) == found["architecture"]
    assert [b.keys() for b in found["budgets"]] == [{"metric", "limit", "unit", "sense"}] * 2
    assert [(b["metric"], b["unit"], b["sense"]) for b in found["budgets"]] == [
        ("macs", "MACs", "at_most"),
        ("latency_ms", "ms", "at_most"),
    ]
    assert found["predicted"].keys() == {"macs", "latency_ms"}
    assert found["measured"]["latency_ms"] > 0
    limit = found["budgets"][0]["limit"]
    assert found["landing"] == "optimal"
    assert found["feasible"] is True
    assert 0.995 * limit <= found["predicted"]["macs"] <= limit
    assert found["gap_percent"]["macs"] == pytest.approx(100 * (found["predicted"]["macs"] / limit - 1))
    assert found["measured_gap_percent"].keys() == {"latency_ms"}
    kept = budgets_of_run(Path(found["run"]), space)  # of a predictor that was given as a file, too
    assert [b.score.metric.name for b in kept] == ["macs", "latency_ms"]
    assert kept[1].score([found["architecture"]])[0] == pytest.approx(found["predicted"]["latency_ms"])
    assert found["argmax"].keys() >= {"architecture", "predicted", "measured", "gap_percent", "measured_gap_percent"}


def test_a_scaled_network_is_one_that_costs_no_more(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    source, found = flow["search"][1], flow["scale"][1]
    assert found.keys() >= FOUND
    assert found["architecture"] == source["architecture"]
    assert found["budgets"] == source["budgets"]
    space = spaces.from_spec(found["space"])
    assert space == spaces.get(TINY).scaled(found["factor"])
    assert read_json(place / "scale" / "architecture.json") == space.to_json(found["architecture"])
    assert [s["factor"] for s in found["steps"]] == [1.0, 1.5, 2.0]
    assert found["measured_gap_percent"].keys() == {"latency_ms"}
    assert found["roofline"]["peak_gmacs_per_s"] > 0
    page = Path(found["page"]).read_text()
    assert "width factor" in page
    assert "GMACs/s" in page


def test_a_refined_network_has_the_same_operators_and_keeps_the_budgets(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    source, found = flow["search"][1], flow["refine"][1]
    assert found.keys() >= FOUND
    assert found["space"]["architecture"] == source["architecture"]
    assert [b["limit"] for b in found["budgets"]] == [b["limit"] for b in source["budgets"]]
    assert found["feasible"]
    refined, before = found["networks"]
    assert (refined["network"], before["network"]) == ("refined", "as it was")
    assert refined["macs"] <= found["budgets"][0]["limit"]
    assert before["macs"] == source["predicted"]["macs"]
    assert all(row["latency_ms"] > 0 and 0 <= row["accuracy"] <= 100 for row in found["networks"])
    page = Path(found["page"]).read_text()
    assert "generation" in page
    assert "as it was" in page


def test_a_study_of_counts_says_what_they_tell_of_a_latency(place: Path) -> None:
    words = ["study", "complexity", "--space", TINY, "-n", 12, "--target", target(place), "--run", place / "study"]
    told = done(*words)
    assert {row["count"] for row in told["rows"]} == {"macs", "params", "mem_access_bytes", "macs_per_byte"}
    assert all(row["networks"] == 12 and -1 <= row["low"] <= row["tau"] <= row["high"] <= 1 for row in told["rows"])
    points = told["points"]
    macs = Complexity(spaces.get(TINY), "macs")(told["architectures"])
    assert points["macs"] == macs.tolist()
    tau = kendalltau(macs, points["latency_ms"]).statistic
    assert next(row["tau"] for row in told["rows"] if row["count"] == "macs") == pytest.approx(tau)
    page = Path(done("report", place / "study", "--out", place / "study.html")["page"]).read_text()
    assert f"tau {tau:.2f}" in page
    code, _, said = sartor(*words[:-2], "--metric", "training_step_ms")
    assert code == 2
    assert "does not measure training_step_ms" in said


def test_devices_are_grouped_on_a_page(place: Path) -> None:
    words = ["--space", TINY, "--target", "torch:cpu", "--target", target(place), "--samples", 12]
    found = done("targets", "--group", *words, "--run", place / "groups")
    assert len(found["devices"]) == 2
    assert sorted(name for group in found["groups"] for name in group) == sorted(found["devices"])
    assert found["networks"] == 12
    assert "Kendall" in Path(found["page"]).read_text()


def test_several_devices_get_one_search_a_group_and_a_width_each(place: Path) -> None:
    here = target(place)
    words = ["--space", TINY, "--target", "torch:cpu", "--target", here, "--samples", 12, *SMALL]
    limits = ["--budget", "1s", "--budget", f"{here}:1s", "--predictor", "ridge"]
    macs = done("spaces", TINY)["macs_range"]
    limits += ["--budget", f"{(macs[0] + macs[1]) / 2e6}MMACs", "--budget", f"{here}:{(macs[0] + macs[1]) / 2e6}MMACs"]
    line = ["search", "surgenas", *words, *limits, "--run", place / "devices"]
    found = done(*line)
    assert [row["target"] for row in found["networks"]] == [ref for group in found["groups"] for ref in group]
    assert {row["target"] for row in found["networks"]} == {"torch:cpu", here}
    for row in found["networks"]:
        assert row["base"] in found["groups"][row["group"] - 1]
        scaled, base = (
            read_json(Path(p) / "result.json") for p in (row["run"], place / "devices" / f"search-{row['group']}")
        )
        assert scaled["architecture"] == base["architecture"]
        assert scaled["factor"] == row["factor"] >= 1.0
    assert "Which devices agree" in Path(found["page"]).read_text()
    assert done(*line)["networks"] == found["networks"]


def test_a_training_says_metric_value_and_size(flow: dict[str, tuple[list[object], dict[str, Any]]]) -> None:
    trained = flow["train"][1]
    assert trained["metric"] == "accuracy"
    assert 0 <= trained["value"] <= 100
    assert trained["epochs"] == 2
    assert trained["macs"] == flow["search"][1]["predicted"]["macs"]
    assert trained["params"] > 0
    assert trained["architecture"] == flow["search"][1]["architecture"]


def test_the_exported_file_is_the_trained_network(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    files = flow["export"][1]["files"]
    assert files.keys() == {"onnx", "pt2", "safetensors"}
    space, arch = spaces.get(TINY), tuple(flow["search"][1]["architecture"])
    network = space.network(arch)
    network.load_state_dict(load_file(place / "train" / "network.safetensors"))
    session = onnxruntime.InferenceSession(files["onnx"]["path"], providers=["CPUExecutionProvider"])
    (x,) = space.inputs(1)
    with torch.no_grad():
        wanted = network.eval()(x).numpy()
    np.testing.assert_allclose(session.run(["output"], {"input0": x.numpy()})[0], wanted, rtol=1e-3, atol=1e-4)


def test_eight_bits_are_calibrated_on_data_and_their_accuracy_is_told(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    told = done("export", place / "train", "--format", "int8", "--data", "digits", "--run", place / "eight")
    assert told["files"].keys() == {"int8"}
    session = onnxruntime.InferenceSession(told["files"]["int8"]["path"], providers=["CPUExecutionProvider"])
    right = 0
    for (x,), (label,) in (task := tasks.get("digits")).batches("test", size=1, seed=0, epoch=0):
        right += int(session.run(["output"], {"input0": x.numpy()})[0].argmax()) == int(label)
    assert told["value_int8"] == pytest.approx(100 * right / task.length("test"))
    assert told["value"] == pytest.approx(flow["train"][1]["value"], abs=0.5)
    page = Path(done("report", place / "eight", "--out", place / "eight.html")["page"]).read_text()
    assert f"Of 8 bits it reaches {told['value_int8']:.1f}" in page
    for words in (["--format", "int8"], ["--data", "digits"]):
        code, _, said = sartor("export", place / "train", *words)
        assert code == 2
        assert "belong together" in said


def test_the_page_shows_the_runs(flow: dict[str, tuple[list[object], dict[str, Any]]]) -> None:
    page = Path(flow["report"][1]["page"]).read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "mine" in page
    assert "<script" not in page


def test_the_same_command_returns_the_same_result_without_work(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    for verb in ("measure", "fit", "search", "train", "export"):
        line, result = flow[verb]
        files = [p for p in (place / verb).rglob("*") if p.is_file() and p.name not in ("lock", "owner.json")]
        before = {p: p.stat().st_mtime_ns for p in files}
        assert done(*line) == result
        assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    code, out, _ = sartor(*flow["search"][0])
    assert code == 0
    assert "landing" in out
    assert not out.startswith("{")


def test_settings_come_from_a_file_and_set_goes_on_top(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    (place / "settings.yaml").write_text("epochs: 1\nwarmup_epochs: 0\nlr: 1e-2\n")
    words = ["--budget", "2MMACs", "--config", place / "settings.yaml", "--set", "epochs=0", "--set", "arch_lr=1e-3"]
    found = done("search", "lightnas", "--space", TINY, *words, "--target", target(place))
    settings = found["settings"]
    assert (settings["epochs"], settings["warmup_epochs"]) == (0, 0)
    assert (settings["lr"], settings["arch_lr"]) == (0.01, 0.001)
    assert Path(found["run"]).parent == Path("runs"), "a run has a place of its own by default"


def test_a_search_measures_and_fits_by_itself_where_no_predictor_is_given(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    low, high = flow["measure"][1]["range"]["latency_ms"]
    words = ["--budget", f"{(low + high) / 2}ms", "--samples", 16, "--set", "epochs=0", "--target", target(place)]
    found = done("search", "lightnas", "--space", TINY, *words, "--run", place / "auto")
    assert found["feasible"] is True
    assert found["landing"] in ("optimal", "verified")
    fit = read_json(place / "auto" / "fit.json")
    assert {row["predictor"] for row in fit["rows"]} == {"ridge", "mlp"}
    assert fit["default"] in ("ridge", "mlp")
    assert (place / "auto" / "predictor-latency_ms.safetensors").exists()


def test_an_unreachable_budget_is_refused_before_the_search(
    flow: dict[str, tuple[list[object], dict[str, Any]]], place: Path
) -> None:
    line = ["search", "lightnas", "--space", TINY, "--target", target(place), "--run", place / "never"]
    for words in (
        ["--budget", "1ns", "--predictor", flow["fit"][1]["file"]],
        ["--budget", "1ns", "--samples", 16, "--predictor", "ridge"],  # fits first, from what was measured already
        ["--budget", "1kMACs"],
    ):
        code, out, err = sartor(*line, *words, "--json")
        assert (code, out) == (3, "")
        assert "reaches" in err.splitlines()[-1]
        assert not (place / "never").exists()


# ---------------------------------------------------------------------- killed

_CHILD = """
import sys
from dataclasses import fields
from sartor.runs import Run
from sartor.targets.timing import Rounds
Run.checkpoint_seconds = 0.0
quick = {"chunk": 4, "rounds": 2, "visit_ms": 1.0, "visit_runs": 1, "warmup_ms": 1.0}
quick |= {"longest": 1, "patience_s": 0.0, "drift": 9.0}
Rounds.__init__.__defaults__ = tuple(quick.get(f.name, f.default) for f in fields(Rounds))
from sartor.cli import main
main()
"""
KILLS = [3, pytest.param(12, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ready(place: Path) -> Path:
    """A predictor and an architecture; what the killed verbs start from."""
    space = spaces.get(TINY)
    archs = space.sample(np.random.default_rng(0), 60)
    values, here = additive(space, 1, 0.01, 0.1)(archs), targets.get(target(place)).id
    Ridge().fit(space, archs, values, metric=metric("latency_ms"), target_id=here).save(place / "p.safetensors")
    write_json(place / "arch.json", space.to_json(archs[0]))
    done("measure", "--space", TINY, "--samples", 24, "--target", target(place), "--run", place / "warm")
    return place


def kill(words: list[object], where: Path, progress: Callable[[], int], least: int, wait: float) -> bool:
    """Start the command and kill it `wait` seconds after it entered its run and got that far.

    True when it was killed, False when it got through before.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", _CHILD, *map(str, words)]
    process = subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        give_up, entered = time.monotonic() + 120, False
        while process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError, ValueError):
                entered = entered or json.loads((where / "owner.json").read_text())["pid"] == process.pid
            if entered and progress() >= least:
                break
            time.sleep(0.005)
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.wait()
    return process.returncode == -signal.SIGKILL


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def disturb(words: list[object], where: Path, journal: str, kills: int, most: int) -> None:
    """Kill the command that often at random moments, starting over whenever it got through."""
    moments, count = random.Random(), 0
    for _ in range(4 * kills):
        least, wait = moments.randint(0, most), moments.uniform(0, 0.3)
        count += kill(words, where, lambda: lines(where / journal), least, wait)
        if count == kills:
            return
        if (where / "result.json").exists():
            shutil.rmtree(where)
    raise AssertionError(f"killed {count} times only")


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_search_finds_the_same_architecture(ready: Path, tmp_path: Path, kills: int) -> None:
    epochs = ["--set", "epochs=5", "--set", "warmup_epochs=1", "--set", "batch_size=64"]
    words: list[object] = ["search", "lightnas", "--space", TINY, "--budget", "1.5ms", *epochs]
    words += ["--predictor", ready / "p.safetensors", "--target", target(ready), "--json"]
    whole = done(*words[:-1], "--run", tmp_path / "whole")
    where = tmp_path / "killed"
    disturb([*words, "--run", where], where, "search/journal.jsonl", kills, 3)
    found = done(*words[:-1], "--run", where)
    for file in ("architecture.json", "search/journal.jsonl"):
        assert (where / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for key in ("architecture", "predicted", "argmax", "landing"):
        mine, theirs = found[key], whole[key]
        if key == "argmax":
            mine, theirs = (a["architecture"] for a in (mine, theirs))
        assert mine == theirs
    assert len(read_lines(where / "search" / "journal.jsonl")) == 5


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_training_ends_with_the_same_weights(ready: Path, tmp_path: Path, kills: int) -> None:
    words: list[object] = ["train", ready / "arch.json", "--set", "epochs=3", "--set", "batch_size=64", "--json"]
    whole = done(*words[:-1], "--run", tmp_path / "whole")
    where = tmp_path / "killed"
    disturb([*words, "--run", where], where, "train/journal.jsonl", kills, 2)
    found = done(*words[:-1], "--run", where)
    for file in ("network.safetensors", "architecture.json", "train/journal.jsonl"):
        assert (where / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert found["value"] == whole["value"]


def test_an_interrupted_command_says_so_and_resumes(ready: Path, tmp_path: Path) -> None:
    words: list[object] = ["train", ready / "arch.json", "--set", "epochs=40", "--run", tmp_path / "run"]
    line = [sys.executable, "-c", _CHILD, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a suite that was started in the background hands down an ignored Ctrl-C
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(line, env=environment, preexec_fn=listening, **piped) as process:
        give_up = time.monotonic() + 120
        while not lines(tmp_path / "run" / "train" / "journal.jsonl") and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "sartor: interrupted; the same command resumes."
    assert not (tmp_path / "run" / "owner.json").exists()
    assert lines(tmp_path / "run" / "train" / "journal.jsonl") >= 1


def rows(store: Path) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Everything measured so far; fails on a doubled row."""
    if not store.exists():
        return {}
    with contextlib.closing(sqlite3.connect(store)) as connection:
        try:
            found = connection.execute(
                "select key, target, metric, sitting, samples, created, error from measurements"
            ).fetchall()
        except sqlite3.OperationalError:  # killed before the table was made
            return {}
    keyed = {tuple(row[:4]): tuple(row[4:]) for row in found}
    assert len(keyed) == len(found)
    return keyed


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_measuring_loses_nothing_and_doubles_nothing(ready: Path, tmp_path: Path, kills: int) -> None:
    store, where, moments = tmp_path / "store.db", tmp_path / "run", random.Random()
    words: list[object] = ["measure", "--space", TINY, "--samples", 24, "--target", target(ready)]
    words += ["--store", store, "--run", where, "--json"]
    before: dict[tuple[str, ...], tuple[str, ...]] = {}
    for _ in range(kills):
        least, wait = len(before) + moments.randint(1, 24 // kills), moments.uniform(0, 0.02)
        if len(before) < 24 and kill(words, where, lambda: len(rows(store)), min(least, 22), wait):
            now = rows(store)
            assert before.items() <= now.items(), "what was measured stays as it was"
            before = now
    result = done(*words[:-1])
    after = rows(store)
    assert before, "it was killed in the middle"
    assert before.items() <= after.items()
    assert len(after) == 24
    assert all(error is None for _, _, error in after.values())
    assert (result["succeeded"], result["failed"]) == (24, 0)
