"""What happened, in sentences: budget, predicted, measured, accuracy, and the baseline, also where it wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sartor.core import METRICS, Json, show
from sartor.report.collect import Recorded
from sartor.report.values import known, number

COUNTED = ("macs", "params", "mem_access_bytes")  # exact, so that there is nothing to measure
EQUAL = 3.0  # percent: what counts as equal measured latency


@dataclass(frozen=True)
class Trained:
    """A trained network: quality on `tested` examples, and by metric every measurement of its cost, one a sitting.

    beside: by metric, the measurement side by side with other networks.
    """

    name: str
    metric: str
    value: float
    epochs: int | None
    measured: Mapping[str, tuple[float, ...]]
    macs: float | None
    params: float | None
    searches: tuple[str, ...]
    tested: int | None = None
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether a search of the report chose it."""
        return bool(self.searches)


def trained(runs: Sequence[Recorded]) -> list[Trained]:
    """Every trained network of the runs, those a search chose first: known by their architecture and space."""
    out = []
    for run in runs:
        value = number(run.get("value"))
        if run.verb not in ("train", "test") or value is None:
            continue
        same = _chosen_by(run, runs)
        sittings = [found for one in (run, *same) if (found := one.get("measured"))]
        measured = {
            name: tuple(dict.fromkeys(v for found in sittings if (v := number(found.get(name))) is not None))
            for name in dict.fromkeys(key for found in sittings for key in found)
        }
        epochs = number(run.get("epochs"))
        data = run.get("data")
        tested = number((data.get("examples") or {}).get("test")) if isinstance(data, dict) else None
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
                None if tested is None else int(tested),
                {k: v for k, own in (run.get("measured") or {}).items() if (v := number(own)) is not None},
            )
        )
    return sorted(out, key=lambda network: not network.found)


def is_found(run: Recorded, runs: Sequence[Recorded]) -> bool:
    """Whether a training is of a network that a search among `runs` chose."""
    return bool(_chosen_by(run, runs))


def _chosen_by(run: Recorded, runs: Sequence[Recorded]) -> list[Recorded]:
    searches = [other for other in runs if other.verb == "search" and other.get("architecture")]
    return [s for s in searches if all(s.get(k) == run.get(k) for k in ("architecture", "space"))]


def thing(search: Recorded) -> str:
    """What it looks for."""
    return "space" if search.job.get("method") == "network-space-search" else "network"


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
    """What a metric is of, without its unit: `latency`, `MACs`."""
    return known(name).unit if name in COUNTED else known(name).label.partition(" (")[0]


def amount(value: float, name: str) -> str:
    """A value of a metric with its unit; `97.2 %` for accuracy."""
    return f"{value:.1f} %" if name == "accuracy" else show(value, known(name))


def gaps(search: Recorded, which: str) -> dict[str, float]:
    """(cost / limit - 1) x 100 per budget, where the cost is known."""
    pairs = {b["metric"]: (cost(search, which, b["metric"]), float(b["limit"])) for b in search.get("budgets") or []}
    return {name: (value / limit - 1) * 100 for name, (value, limit) in pairs.items() if value is not None}


def cost(search: Recorded, which: str, name: str) -> float | None:
    """Cost of the network found, `predicted` or `measured`; None where unknown."""
    return number((search.get("predicted" if name in COUNTED else which) or {}).get(name))


def allowed(budget: Mapping[str, Json]) -> float:
    """The largest gap in percent that keeps a budget, up to rounding."""
    return (0.5 if budget.get("sense") == "at" else 0.0) + 1e-7


def kept(search: Recorded, which: str) -> bool | None:
    """Whether every budget holds, by predicted or measured cost; None where a cost is unknown."""
    found, budgets = gaps(search, which), search.get("budgets") or []
    if not budgets or any(b["metric"] not in found for b in budgets):
        return None
    if which == "predicted" and isinstance(search.get("feasible"), bool):
        return bool(search.get("feasible"))
    return all(found[b["metric"]] <= allowed(b) for b in budgets)


def budget_words(search: Recorded) -> str:
    """`budget of 20 ms`, or several."""
    limits = [show(float(b["limit"]), known(b["metric"])) for b in search.get("budgets") or []]
    return f"budget{'s' if len(limits) > 1 else ''} of {' and '.join(limits)}" if limits else "budget"


def verdict(search: Recorded, networks: Sequence[Trained]) -> str:
    """The headline of a search: whether the budget holds, and how the network stands beside the baseline."""
    budget, predicted, measured = budget_words(search), kept(search, "predicted"), kept(search, "measured")
    sittings = [
        ((value / float(b["limit"]) - 1) * 100, allowed(b))
        for b in search.get("budgets") or []
        for value in repeats(search, networks, b["metric"])
    ]
    over, what = [gap for gap, _ in sittings], thing(search)
    measured = measured and all(gap <= most for gap, most in sittings)
    if search.result is None:
        return "The search has not finished"
    if predicted is False:
        text, good = f"The search missed its {budget}", False
        worst = max(gaps(search, "predicted").values(), default=0.0)
        text += f": the best it found is predicted {gap_words(worst)}" if worst > 0 else ""
    elif measured is False:
        spread = f"between {gap_words(min(over))} and " if min(over) < 0 and len(search.get("budgets")) == 1 else ""
        text, good = f"Predicted within its {budget}, the {what} measures {spread}{gap_words(max(over))} it", False
    elif measured:
        text, good = f"The {what} found keeps its {budget}", True
    elif predicted:
        text, good = f"The {what} found keeps its {budget} as predicted; it was not measured", True
    else:
        known_limits = bool(search.get("budgets"))
        text, good = f"The search found a {what}" + ("; what it costs is not recorded" if known_limits else ""), True
    ours, theirs = rivals(search, networks)
    if ours is None or theirs is None:
        return text
    better = advantage(ours, theirs)
    joint = " and" if (better >= 0) == good else ", but"
    several = sum(not t.found and t.metric == ours.metric for t in networks) > 1
    slower = slower_percent(ours, theirs) or 0.0
    pace = f", which is {abs(slower):.0f} % {'slower' if slower > 0 else 'faster'}" if abs(slower) > EQUAL else ""
    rival = theirs.name if several else "the baseline"
    return f"{text}{joint} {_versus(ours, better)} {rival}{_chance(ours, theirs)}{pace}"


def facts(search: Recorded, networks: Sequence[Trained]) -> str:
    """The sentences under the headline: every number that matters, with the baseline's beside it."""
    said = []
    subject = "a network of the space, on average," if thing(search) == "space" else "the network"
    for budget in search.get("budgets") or []:
        name = budget["metric"]
        parts = []
        for which, verb in (("predicted", "is predicted to need"), ("measured", "was measured at")):
            gap, value = gaps(search, which).get(name), cost(search, which, name)
            if gap is None or value is None:
                parts.append(f"was not {which}")
            elif name not in COUNTED or which == "predicted":
                verb = "needs exactly" if name in COUNTED else verb
                parts.append(f"{verb} {show(value, known(name))} ({gap_words(gap)})")
        limit = f"The {noun(name)} budget is {show(float(budget['limit']), known(name))}"
        said.append(f"{limit}; {subject} {' and '.join(parts)}.")
        again = [] if name in COUNTED else repeats(search, networks, name)[1:]
        shown = [f"{show(v, known(name))} ({gap_words((v / float(budget['limit']) - 1) * 100)})" for v in again]
        if shown:
            said.append(f"In another sitting it was measured at {', '.join(shown)}.")
    ours, theirs = rivals(search, networks)
    if ours is None:
        none = "No network of the space" if thing(search) == "space" else "The network found"
        return " ".join([*said, f"{none} was{'' if none.startswith('No') else ' not'} trained in these runs."])
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
    """By how much the other network is slower, in percent of ours; None where one was not measured.

    Measured side by side, that counts. Otherwise the measurements that differ least do: what repeated ones do not tell
    apart counts as equal.
    """
    same = [t.beside.get("latency_ms") for t in (ours, theirs)]
    if same[0] and same[1]:
        return (same[1] / same[0] - 1) * 100
    a, b = (t.measured.get("latency_ms", ()) for t in (ours, theirs))
    if not a or not b or min(a) <= 0:
        return None
    apart = min(b) / max(a) if min(b) > max(a) else max(b) / min(a) if max(b) < min(a) else 1.0
    return (apart - 1) * 100


def repeats(search: Recorded, networks: Sequence[Trained], name: str) -> list[float]:
    """Every measurement of the network a search found: the search's own, then those of its trainings."""
    own = cost(search, "measured", name)
    more = [v for t in networks if search.name in t.searches for v in t.measured.get(name, ())]
    return list(dict.fromkeys(([] if own is None else [own]) + more))


def advantage(ours: Trained, theirs: Trained) -> float:
    """How much better ours is, positive where it is, in the metric's unit."""
    difference = ours.value - theirs.value
    return -difference if ours.metric in METRICS and METRICS[ours.metric].better == "less" else difference


def _chance(ours: Trained, theirs: Trained) -> str:
    """A warning where the 95 % intervals of two accuracies overlap: that is not a ranking."""
    n = ours.tested
    if ours.metric != "accuracy" or not n or abs(ours.value - theirs.value) < 0.05:
        return ""
    margins = [1.96 * 100 * math.sqrt((t.value / 100) * (1 - t.value / 100) / n) for t in (ours, theirs)]
    return f" (within chance on {n} test images)" if abs(ours.value - theirs.value) <= sum(margins) else ""


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
