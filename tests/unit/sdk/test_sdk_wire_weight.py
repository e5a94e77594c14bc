"""What a program loads and installs for the client's sake."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MOST_DISTRIBUTIONS = 20
HEAVY = {"pydantic", "pydantic_core", "httpx", "httpcore", "anyio", "rich", "typer", "click"}
SERVERS = {
    "aiodocker",
    "aiosqlite",
    "alembic",
    "bittensor_wallet",
    "huggingface_hub",
    "litestar",
    "pydantic_settings",
    "jwt",
    "sqlalchemy",
    "structlog",
    "uvicorn",
    "uvloop",
    "websockets",
}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after ``code``."""
    script = (
        f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_import_loads_nothing_heavy() -> None:
    assert not loaded_by("import compute_horde_sdk.v1") & (HEAVY | SERVERS)


def test_the_wire_side_loads_no_server_library() -> None:
    assert not loaded_by("import compute_horde_sdk._internal.wire.session") & SERVERS


OPEN = """
from compute_horde_sdk._internal.opening import open_horde
from compute_horde_sdk._internal.wiring import Wiring
open_horde("http://horde.test", None, Wiring())
"""


def test_a_first_call_does_not_load_httpxs_command_line() -> None:
    assert {"httpx", "pydantic"} <= loaded_by(OPEN)
    assert not loaded_by(OPEN) & {"rich", "click", "pygments"}


def test_httpx_is_whole_for_whoever_loads_it_before_or_after() -> None:
    pytest.importorskip("click", reason="without it httpx has no command line to load")
    assert "click" in loaded_by(f"import httpx\n{OPEN}")
    assert "click" in loaded_by(f"{OPEN}\nimport httpx._main")


def base_install() -> set[str]:
    """All distributions that ``pip install`` brings on this machine, itself included, without extras."""
    found: set[str] = set()
    open_ends = [(canonicalize_name("compute-horde"), frozenset[str]())]
    while open_ends:
        current, extras = open_ends.pop()
        found.add(current)
        for text in metadata.requires(current) or ():
            wanted = Requirement(text)
            marker, name = wanted.marker, canonicalize_name(wanted.name)
            applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})
            if applies and name not in found:
                open_ends.append((name, frozenset(wanted.extras)))
    return found


def test_the_base_install_is_small() -> None:
    found = base_install()
    assert {"compute-horde", "httpx", "pydantic"} <= found
    assert len(found) <= MOST_DISTRIBUTIONS, sorted(found)
