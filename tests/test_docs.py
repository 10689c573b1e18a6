"""What the documentation says is so: links resolve, the example of a space works, every result has its figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_space_of_the_guide_keeps_the_contract(tmp_path: Path) -> None:
    block = next(
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / "docs/guide.md").read_text(), re.S) if "Mine" in b
    )
    (tmp_path / "mine.py").write_text(block)
    given = "from mine import Mine; from tests.contracts.spaces import check_space"
    check = f"{given}; check_space(Mine(), setup='import mine')"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_finds_a_space_that_an_installed_package_names(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guide.md").read_text()
    (tmp_path / "mypackage").mkdir()
    code = next(b for b in re.findall(r"```python\n(.*?)```", guide, re.S) if "Mine" in b)
    (tmp_path / "mypackage/mine.py").write_text(code.replace('SPACES.register("mine", Mine)', "pass"))
    (tmp_path / "mypackage-1.dist-info").mkdir()
    (tmp_path / "mypackage-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1\n")
    table = tomllib.loads(re.search(r"```toml\n(.*?)```", guide, re.S)[1])["project"]["entry-points"]  # type: ignore[index]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in table.items()]
    (tmp_path / "mypackage-1.dist-info/entry_points.txt").write_text("".join(lines))
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", "from sartor.cli import main; main()", "spaces", "mine", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size"] == 16


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda p: p.stem)
def test_every_committed_result_has_its_figures_and_its_conditions(file: Path) -> None:
    result = json.loads(file.read_text())
    assert result["summary"]
    assert {"goal", "settings", "versions", "machine", "rows"} <= result.keys()
