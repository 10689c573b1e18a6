"""`sartor search METHOD` for several targets: one base search a group of devices, then each device's own width.

Thesis 3.4.2.1: devices that agree about networks share a search; what it finds is scaled up for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sartor.cli.common import default_run, emit, run_verb, say_step
from sartor.core import Json, UserError, parse_limit
from sartor.runs import Run, write_json

COMPARED = 100  # networks that devices are grouped by


def search_devices(
    method: str,
    space: str,
    references: Sequence[str],
    limits: Sequence[str],
    samples: int,
    store: str | None,
    words: Sequence[object],
    where: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Every step is the verb of that name in a run directory below the run, so each resumes by itself.

    limits: `20ms` for every base search, `TARGET:20ms` for that of the group in which TARGET is; words: further
    options of the searches.
    """
    from sartor import spaces, targets

    found = {reference: targets.get(reference).id for reference in references}
    own = [_of_target(limit, list(found)) for limit in limits]
    if len(set(found.values())) < len(references):
        raise UserError(f"two of the targets {', '.join(references)} are the same; give each once.")
    if not limits:
        raise UserError(f"{method} needs a budget; add one such as --budget 20ms, or --budget {references[0]}:20ms.")
    spaces.get(space).scaled(1.0)
    stored = ["--store", store] if store else []
    job = {"verb": "search", "method": method, "space": spaces.get(space).spec(), "targets": list(found.values()),
           "budgets": list(limits), "words": list(map(str, words))}  # fmt: skip
    run = where or default_run(job, seed)
    with Run(run, job, seed):
        say_step("group the devices")
        given = [word for reference in references for word in ("--target", reference)]
        grouped = run_verb(
            "targets", run / "groups", seed, "--group", "--space", space, *given,
            "--samples", min(COMPARED, samples), *stored,
        )  # fmt: skip
        by_id = {id_: reference for reference, id_ in found.items()}
        groups = [[by_id[id_] for id_ in group] for group in grouped["groups"]]
        rows: list[dict[str, Json]] = []
        bases = [_base(group, own) for group in groups]  # a group without a budget is said before any search
        for k, (group, (base, mine)) in enumerate(zip(groups, bases)):
            say_step(f"search for {base}, the base of group {k + 1}: {', '.join(group)}")
            limits_of = [word for limit in mine for word in ("--budget", limit)]
            run_verb(
                "search", run / f"search-{k + 1}", seed, method, "--space", space, "--target", base, *limits_of,
                *words, *stored,
            )  # fmt: skip
            for reference in group:
                say_step(f"scale for {reference}")
                at = run / f"scale-{references.index(reference) + 1}"
                scaled = run_verb("scale", at, seed, run / f"search-{k + 1}", "--target", reference, *stored)
                rows.append({"target": reference, "group": k + 1, "base": base, "factor": scaled["factor"],
                             "latency_ms": scaled["measured"]["latency_ms"], "run": str(at)})  # fmt: skip
        result: dict[str, Json] = {"verb": "search", "run": str(run), "seed": seed, "method": method,
                                   "groups": groups, "networks": rows, "page": str(run / "report.html")}  # fmt: skip
        write_json(run / "result.json", result)
    from sartor.report import report

    report([run], run / "report.html")
    emit(result, as_json)


def _of_target(limit: str, references: Sequence[str]) -> tuple[str | None, str]:
    """`TARGET:20ms` as target and limit; None where a limit is for all. Raises UserError for an unknown target."""
    reference, _, text = limit.rpartition(":")
    if reference and reference not in references:
        raise UserError(
            f"budget {limit!r} is for target {reference!r}, which is not among {', '.join(references)}; write "
            f"{references[0]}:{text}."
        )
    parse_limit(text)
    return reference or None, text


def _base(group: Sequence[str], limits: Sequence[tuple[str | None, str]]) -> tuple[str, list[str]]:
    """The device of a group that is searched for, and its limits: the one with limits of its own, or the first."""
    own = {reference: [text for of, text in limits if of == reference] for reference in group}
    having = [reference for reference in group if own[reference]]
    if len(having) > 1:
        raise UserError(
            f"{' and '.join(having)} agree about networks and share a search, but each has a budget of its own; give a "
            f"budget to one of them, or search for {having[1]} alone."
        )
    if having:
        return having[0], own[having[0]]
    shared = [text for of, text in limits if of is None]
    if not shared:
        raise UserError(f"no device of the group {', '.join(group)} has a budget; add --budget {group[0]}:20ms.")
    return group[0], shared
