"""Every example of README.md and docs/ does what its page says, on a real horde. The rules are in examples.py."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.examples import PAGES, ROOT, Block, Program, programs_of, replaced, script_of, scripts_of

from compute_horde.stack.fileserver import FileServer

from .conftest import RunningHorde, running

FILES = {
    "/numbers.txt": b"3\n4\n5\n",
    "/words.txt": b"so it goes\n",
}
PROGRAMS = [program for page in PAGES for program in programs_of(page)]
SCRIPTS = [block for page in PAGES for block in scripts_of(page) if block.not_run is None]
RUNNABLE = [program for program in PROGRAMS if any(block.not_run is None for block in program.blocks)]


@dataclass(frozen=True)
class Reader:
    """A reader's machine. ``replacements``: what stands in a page, and what is true here."""

    folder: Path
    environment: dict[str, str]
    replacements: Mapping[str, str]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def own_horde(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHorde]:
    """What ``horde up`` of the pages starts, in the folder where it does."""
    home = tmp_path_factory.mktemp("reader")
    data = home / ".local" / "share" / "compute-horde"
    data.parent.mkdir(parents=True)
    with running(data, "--executors", "4") as started:
        yield started


@pytest.fixture(scope="module")
def reader(own_horde: RunningHorde, image: str) -> Iterator[Reader]:
    home = own_horde.home.parents[2]
    folder = home / "work"
    folder.mkdir()
    (folder / "horde.json").write_text(json.dumps(own_horde.info))
    shutil.copy(ROOT / "README.md", folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "HORDE_"))}
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    environment |= {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with FileServer(FILES) as files:
        yield Reader(
            folder,
            environment,
            {
                r"\bbusybox\b": image,
                r"https://files\.example\b": files.url,
                r"http://127\.0\.0\.1:9000/?(?=\")": own_horde.info["facilitator_url"],
                r"<printed by horde up>": own_horde.info["validator_hotkey"],
                r"\buv run horde\b": "horde",
                # the fixture is that horde; the file is there
                r"(?m)^horde up\b.*$": "true",
                # the chores have tests of their own, and `make test` is this one
                r"\bmake (?=[a-z])": f"make --no-print-directory -n -C {ROOT} ",
            },
        )


@pytest.mark.parametrize("program", RUNNABLE, ids=lambda program: program.name)
def test_python(program: Program, reader: Reader) -> None:
    file = reader.folder / f"{program.name}.py"
    file.write_text(replaced(program.source(), reader.replacements))
    done = reader.run(sys.executable, str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    prints_in_order(done.stdout, program.prints)


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.name)
def test_commands(block: Block, reader: Reader) -> None:
    done = reader.run("bash", "-uc", replaced(script_of(block), reader.replacements))
    assert done.returncode == 0, done.stdout + done.stderr
    prints_in_order(done.stdout, [block.prints] if block.prints else [])


def test_types(tmp_path: Path) -> None:
    """All of them, as a strict type checker sees them; a page need not ask each time whether a result is there."""
    for program in PROGRAMS:
        (tmp_path / f"{re.sub('[^a-z0-9]', '_', program.name)}.py").write_text(program.source(every_block=True))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-strict-optional", "--ignore-missing-imports"]
    command += ["--config-file=", "--cache-dir", str(ROOT / ".mypy_cache" / "examples"), "--no-error-summary"]
    command += ["--python-executable", sys.executable, *map(str, sorted(tmp_path.glob("*.py")))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout == "", done.stdout


def prints_in_order(output: str, expected: list[str]) -> None:
    position = 0
    for part in expected:
        found = output.find(part, position)
        assert found >= 0, f"{part!r} is not in what follows {output[:position]!r}: {output[position:]!r}"
        position = found + len(part)
