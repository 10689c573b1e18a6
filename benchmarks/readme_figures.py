"""The pictures of the README, from a finished quickstart.

python benchmarks/readme_figures.py runs/quickstart
"""

from __future__ import annotations

import sys
from pathlib import Path

from sartor.report.figures import architecture, trajectory
from sartor.runs import read_json, read_lines
from sartor.spaces import from_spec


def main() -> None:
    run, out = Path(sys.argv[1]), Path(__file__).parent.parent / "docs" / "img"
    found = read_json(run / "search" / "result.json")
    journal = read_lines(run / "search" / "search" / "journal.jsonl")
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "search": trajectory(journal, found["budgets"], found["predicted"], found["measured"]),
        "network": architecture(from_spec(found["space"]), found["architecture"]),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.svg", facecolor="white")


if __name__ == "__main__":
    main()
