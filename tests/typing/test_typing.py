"""The door as strict type checkers see it: programs of users, and no ``Any`` anywhere."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from compute_horde_sdk import v1
from compute_horde_sdk.v1 import sync

PROGRAMS = Path(__file__).parent / "programs"
STRICT = ["--strict", "--config-file=", "--no-error-summary", "--python-executable", sys.executable]


def mypy(*arguments: str | Path, cwd: Path) -> str:
    """What mypy says to a user, who has no configuration of ours and finds the library installed."""
    cache = Path(__file__).parents[2] / ".mypy_cache" / "users"
    command = [sys.executable, "-m", "mypy", *STRICT, "--cache-dir", str(cache), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False).stdout


def with_mistakes_shown(folder: Path) -> tuple[Path, set[int]]:
    """The mistaken program without its ignores, and the lines that are wrong in it."""
    bare = folder / "bare.py"
    bare.write_text((PROGRAMS / "mistaken.py").read_text().replace("# type: ignore", "# wrong"))
    return bare, {number for number, line in enumerate(bare.read_text().splitlines(), 1) if "# wrong" in line}


def test_mypy_finds_programs_sound_and_no_any_in_them(tmp_path: Path) -> None:
    sound = [path for path in PROGRAMS.glob("*.py") if path.name != "mistaken.py"]
    assert mypy("--disallow-any-expr", *sound, cwd=tmp_path) == ""


def test_mypy_finds_each_mistake(tmp_path: Path) -> None:
    assert mypy(PROGRAMS / "mistaken.py", cwd=tmp_path) == ""
    bare, wrong = with_mistakes_shown(tmp_path)
    found = {int(line.split(":")[1]) for line in mypy(bare, cwd=tmp_path).splitlines() if " error: " in line}
    assert found == wrong


def test_pyright_agrees(tmp_path: Path) -> None:
    bare, wrong = with_mistakes_shown(tmp_path)
    config = {"typeCheckingMode": "strict", "reportAny": "error", "include": [str(PROGRAMS), str(bare)]}
    config["exclude"] = [str(PROGRAMS / "mistaken.py")]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "basedpyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        "--project",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    found = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    assert {one["range"]["start"]["line"] + 1 for one in found if one["file"] == str(bare)} == wrong
    assert [one for one in found if one["file"] != str(bare)] == []


def test_the_blocking_program_is_the_awaiting_one_without_await() -> None:
    awaiting = (PROGRAMS / "awaiting.py").read_text().partition("\n")[2]
    for theirs, ours in {
        "AsyncIterator": "Iterator",
        "_sdk.v1": "_sdk.v1.sync",
        "async ": "",
        "await ": "",
    }.items():
        awaiting = awaiting.replace(theirs, ours)
    assert (PROGRAMS / "blocking.py").read_text().partition("\n")[2] == awaiting


@pytest.mark.parametrize("door", [v1, sync], ids=["v1", "sync"])
def test_no_annotation_at_the_door_holds_any(door: ModuleType) -> None:
    found = [where for name in door.__all__ for where, hint in hints(name, getattr(door, name)) if holds_any(hint)]
    assert found == []


@pytest.mark.parametrize("door", [v1, sync], ids=["v1", "sync"])
def test_everything_at_the_door_is_annotated(door: ModuleType) -> None:
    looked_at = [where for name in door.__all__ for where, _ in hints(name, getattr(door, name))]
    assert {"ComputeHordeClient.iter_jobs.return", "ComputeHordeJob.wait.return"} <= set(looked_at)


def test_an_any_would_be_found() -> None:
    assert holds_any(dict[str, list[typing.Any]])
    assert holds_any(typing.Callable[[typing.Any], None] | None)
    assert not holds_any(dict[str, list[object]])


def hints(name: str, thing: object) -> Iterator[tuple[str, object]]:
    """Every annotation of something public, with its place."""
    if inspect.isfunction(thing):
        yield from annotations(name, thing)
    elif inspect.isclass(thing) and thing.__module__.startswith("compute_horde_sdk."):
        parts = [part for part in thing.__mro__ if part.__module__.startswith("compute_horde_sdk.")]
        local = {key: kind for part in parts for key, kind in names_of(part.__module__).items()}
        for part in parts:
            fields = typing.get_type_hints(part, localns=local)
            yield from ((f"{name}.{field}", hint) for field, hint in fields.items() if not field.startswith("_"))
            for method, value in vars(part).items():
                if method.startswith("_") and method not in {"__init__", "__aenter__", "__enter__", "__repr__"}:
                    continue
                yield from annotations(f"{name}.{method}", inspect.unwrap(getattr(value, "__func__", value)))


def annotations(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, property):
        assert value.fget is not None
        yield name, typing.get_type_hints(value.fget, localns=names_of(value.fget.__module__))["return"]
    elif inspect.isfunction(value):
        for function in typing.get_overloads(value) or [value]:
            local = names_of(function.__module__)
            found = typing.get_type_hints(function, localns=local)
            wanted = set(inspect.signature(function).parameters) - {"self", "cls"}
            assert wanted <= set(found), name
            yield from ((f"{name}.{parameter}", hint) for parameter, hint in found.items())


def names_of(module: str) -> dict[str, object]:
    """What the module has for type checkers only. What is not installed here stands for itself."""
    loaded = importlib.import_module(module)
    names: dict[str, object] = {}
    for block in (node for node in ast.parse(inspect.getsource(loaded)).body if isinstance(node, ast.If)):
        for node in block.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name: imported(node, alias.name) for alias in node.names}
            elif isinstance(node, ast.Assign):
                alias_of = eval(ast.unparse(node.value), {**vars(loaded), **names})
                names |= {ast.unparse(target): alias_of for target in node.targets}
    return names


def imported(node: ast.Import | ast.ImportFrom, name: str) -> object:
    try:
        if isinstance(node, ast.ImportFrom):
            return getattr(importlib.import_module(node.module or ""), name)
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return type(name, (), {})


def holds_any(hint: object) -> bool:
    if isinstance(hint, list):
        return any(map(holds_any, hint))
    return hint is typing.Any or any(map(holds_any, typing.get_args(hint)))
