"""What happened, in sentences: budget, predicted, measured, accuracy, and the baseline, also where it wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sartor.core import METRICS, show
from sartor.report.collect import Recorded
from sartor.report.style import known, number

EQUAL = 3.0  # percent: what counts as equal measured latency


@dataclass(frozen=True)
class Trained:
    """A trained network: its quality, and its measured cost by metric (None where not measured)."""

    name: str
    metric: str
    value: float
    epochs: int | None
    measured: Mapping[str, Any]
    macs: float | None
    params: float | None
    searches: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether a search of the report chose it."""
        return bool(self.searches)


def trained(runs: Sequence[Recorded]) -> list[Trained]:
    """Every trained network of the runs, those a search chose first: known by their architecture and space."""
    out = []
    for run in runs:
        value = number(run.get("value"))
        if run.verb != "train" or value is None:
            continue
        same = _chosen_by(run, runs)
        measured: Mapping[str, Any] = run.get("measured") or next(
            (s.get("measured") for s in same if s.get("measured")), {}
        )
        epochs = number(run.get("epochs"))
        out.append(
            Trained(
                str(run.get("name") or run.job.get("name") or run.name),
                str(run.get("metric") or "accuracy"),
                value,
                None if epochs is None else int(epochs),
                measured,
                number(run.get("macs")),
                number(run.get("params")),
                tuple(s.name for s in same),
            )
        )
    return sorted(out, key=lambda network: not network.found)


def is_found(run: Recorded, runs: Sequence[Recorded]) -> bool:
    """Whether a training is of a network that a search among `runs` chose."""
    return bool(_chosen_by(run, runs))


def _chosen_by(run: Recorded, runs: Sequence[Recorded]) -> list[Recorded]:
    searches = [other for other in runs if other.verb == "search" and other.get("architecture")]
    return [s for s in searches if all(s.get(k) == run.get(k) for k in ("architecture", "space"))]


def gap_words(gap: float) -> str:
    """`1.6 % over`, `0.30 % under`, `exactly at`."""
    if abs(gap) < 0.005:
        return "exactly at"
    digits = 2 if abs(gap) < 1 else 1
    return f"{abs(gap):.{digits}f} % {'over' if gap > 0 else 'under'}"


def signed(percent: float, digits: int = 2) -> str:
    """`+1.55 %`, `−0.30 %`."""
    return f"{percent:+.{digits}f} %".replace("-", "−")


def noun(name: str) -> str:
    """What a metric is of, without its unit: `latency`."""
    return known(name).label.partition(" (")[0]


def amount(value: float, name: str) -> str:
    """A value of a metric with its unit; `97.2 %` for accuracy."""
    return f"{value:.1f} %" if name == "accuracy" else show(value, known(name))


def gaps(search: Recorded, which: str) -> dict[str, float]:
    """(cost / limit - 1) x 100 per budget, where the cost is known."""
    values = search.get(which) or {}
    pairs = {
        str(b["metric"]): (number(values.get(b["metric"])), float(b["limit"])) for b in search.get("budgets") or []
    }
    return {name: (cost / limit - 1) * 100 for name, (cost, limit) in pairs.items() if cost is not None}


def kept(search: Recorded, which: str) -> bool | None:
    """Whether every budget holds, by predicted or measured cost; None where a cost is unknown."""
    found, budgets = gaps(search, which), search.get("budgets") or []
    if not budgets or any(b["metric"] not in found for b in budgets):
        return None
    if which == "predicted" and isinstance(search.get("feasible"), bool):
        return bool(search.get("feasible"))
    return all(found[b["metric"]] <= (0.5 if b.get("sense") == "at" else 0.0) + 1e-7 for b in budgets)


def budget_words(search: Recorded) -> str:
    """`budget of 20 ms`, or several."""
    limits = [show(float(b["limit"]), known(b["metric"])) for b in search.get("budgets") or []]
    return f"budget{'s' if len(limits) > 1 else ''} of {' and '.join(limits)}" if limits else "budget"


def verdict(search: Recorded, networks: Sequence[Trained]) -> str:
    """The headline of a search: whether the budget holds, and how the network stands beside the baseline."""
    budget, predicted, measured = budget_words(search), kept(search, "predicted"), kept(search, "measured")
    worst = max(gaps(search, "measured").values(), default=0.0)
    if search.result is None:
        return "The search has not finished"
    if predicted is False:
        text, good = f"The search missed its {budget}", False
        over = max(gaps(search, "predicted").values(), default=0.0)
        text += f": the best it found is predicted {gap_words(over)}" if over > 0 else ""
    elif measured is False:
        text, good = f"Predicted within its {budget}, the network measures {gap_words(worst)} it", False
    elif measured:
        text, good = f"The network found keeps its {budget}", True
    elif predicted:
        text, good = f"The network found keeps its {budget} as predicted; it was not measured", True
    else:
        text, good = "The search found a network; what it costs is not recorded", True
    ours, theirs = rivals(search, networks)
    if ours is None or theirs is None:
        return text
    better = advantage(ours, theirs)
    joint = " and" if (better >= 0) == good else ", but"
    return f"{text}{joint} {_versus(ours, better)} the baseline"


def facts(search: Recorded, networks: Sequence[Trained]) -> str:
    """The sentences under the headline: every number that matters, with the baseline's beside it."""
    said = []
    for budget in search.get("budgets") or []:
        name = budget["metric"]
        parts = []
        for which, verb in (("predicted", "is predicted to need"), ("measured", "measured at")):
            gap, value = gaps(search, which).get(name), number((search.get(which) or {}).get(name))
            if gap is None or value is None:
                parts.append(f"{'is ' if which == 'predicted' else ''}not {which}")
            else:
                parts.append(f"{verb} {show(value, known(name))} ({gap_words(gap)})")
        limit = f"The {noun(name)} budget is {show(float(budget['limit']), known(name))}"
        said.append(f"{limit}; the network {' and '.join(parts)}.")
    ours, theirs = rivals(search, networks)
    if ours is None:
        return " ".join([*said, "The network found was not trained in these runs."])
    epochs = f" for {ours.epochs} epochs" if ours.epochs else ""
    quality = noun(ours.metric)
    said.append(f"Trained{epochs}, it reaches {amount(ours.value, ours.metric)} {quality}")
    if theirs is None:
        return " ".join(said) + "; there is no baseline to compare it with."
    speed = slower_percent(ours, theirs)
    pace = "" if speed is None else f" {_pace(speed)}"
    return f"{' '.join(said)}; the baseline {theirs.name} reaches {amount(theirs.value, theirs.metric)}{pace}."


def rivals(search: Recorded, networks: Sequence[Trained]) -> tuple[Trained | None, Trained | None]:
    """The search's own network, trained, and the best baseline of equal or lower latency (else the best of all)."""
    ours = next((t for t in networks if search.name in t.searches), None)
    if ours is None:
        return None, None
    others = [t for t in networks if not t.found and t.metric == ours.metric]
    fair = [t for t in others if (slow := slower_percent(ours, t)) is not None and slow <= EQUAL]
    return ours, max(fair or others, key=lambda t: advantage(t, ours), default=None)


def slower_percent(ours: Trained, theirs: Trained) -> float | None:
    """By how much the other network is slower as measured, in percent of ours."""
    a, b = (number(t.measured.get("latency_ms")) for t in (ours, theirs))
    return None if a is None or b is None or a <= 0 else (b / a - 1) * 100


def advantage(ours: Trained, theirs: Trained) -> float:
    """How much better ours is, positive where it is, in the metric's unit."""
    difference = ours.value - theirs.value
    return -difference if ours.metric in METRICS and METRICS[ours.metric].better == "less" else difference


def _versus(ours: Trained, better: float) -> str:
    if ours.metric != "accuracy":
        return f"is {'better' if better > 0 else 'worse'} by {abs(better):.3g} than" if better else "is as good as"
    if abs(better) < 0.05:
        return "is as accurate as"
    return f"is {abs(better):.1f} points {'more' if better > 0 else 'less'} accurate than"


def _pace(slower: float) -> str:
    if abs(slower) <= EQUAL:
        return f"at equal measured latency ({signed(slower, 1)})"
    return f"at {abs(slower):.0f} % {'higher' if slower > 0 else 'lower'} measured latency"
