"""The repository's habits: a README that runs, chores that list themselves, no loose ends in the source."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / ".ci/run", *sorted((ROOT / "scripts").glob("*.sh"))]
LEVELS = {"unit", "contract", "typing", "integration", "acceptance", "chaos"}
LOOSE_END = re.compile(r"\b(TODO|FIXME|XXX)\b")


def test_readme_is_short_and_shows_code_early() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    fences = [number for number, line in enumerate(lines, start=1) if line.startswith("```")]
    assert len(lines) < 150
    assert fences, "the README shows no code"
    assert fences[0] < 25


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # This test itself runs under `make test`, whose flags must not reach the inner make.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [line.split()[0] for line in shown.stdout.splitlines()]
    assert listed == targets
    assert {"setup", "check", "test", "demo", "bench", "docs"} <= set(listed)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_parse_and_those_with_an_interpreter_may_run(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.read_text().startswith("#!") == os.access(script, os.X_OK)


def test_ci_runs_the_same_words_as_a_developer() -> None:
    assert "make check test" in (ROOT / ".ci/run").read_text()


def test_licence_is_mit() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert project["license"] == "MIT"


def test_every_test_belongs_to_a_level() -> None:
    stray = [
        path.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.relative_to(ROOT / "tests").parts[0] not in LEVELS
    ]
    assert stray == []


def test_source_has_no_loose_ends() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "src").rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if LOOSE_END.search(line)
    ]
    assert found == []
