"""The synchronous twins are what the script makes of today's source, and lack nothing."""

import dataclasses
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compute_horde_sdk import v1
from compute_horde_sdk.v1 import sync

REPOSITORY = Path(__file__).parents[3]
TWINS = {"ComputeHordeClient", "ComputeHordeJob", "MappedJob"}
PAIRS = [(v1.ComputeHordeClient, sync.ComputeHordeClient), (v1.ComputeHordeJob, sync.ComputeHordeJob)]
RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
AWAITED = re.compile(r"\b(Async\w+|Awaitable|Coroutine|async|await)\b")


def test_the_generated_source_is_up_to_date() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/make_sync.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "run: python scripts/make_sync.py"


def test_both_doors_have_the_same_names() -> None:
    assert sync.__all__ == v1.__all__
    for name in v1.__all__:
        assert (getattr(sync, name) is not getattr(v1, name)) == (name in TWINS), name


def test_nothing_else_at_the_door_has_to_be_awaited() -> None:
    awaited = [name for name in v1.__all__ if inspect.iscoroutinefunction(getattr(v1, name))]
    methods = [
        f"{name}.{member}"
        for name in v1.__all__
        if inspect.isclass(found := getattr(v1, name)) and found not in dict(PAIRS)
        for member, value in vars(found).items()
        if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
    ]
    assert (awaited, methods) == ([], [])


def public(kind: type) -> set[str]:
    """What the class defines for its users."""
    named = {name for part in kind.__mro__[:-1] for name in vars(part) if not name.startswith("_")}
    shown = {name for name in vars(kind) if re.fullmatch(r"_repr_\w+_|__a(enter|exit)__|__repr__", name)}
    return {RENAMED.get(name, name) for name in named | shown}


@pytest.mark.parametrize(("kind", "twin"), PAIRS)
def test_every_public_name_has_its_twin(kind: type, twin: type) -> None:
    assert public(kind) - public(twin) - {"__enter__", "__exit__"} == set()
    extra = {
        name
        for name in public(twin) - public(kind)
        if not isinstance(inspect.getattr_static(twin, name), property)
    }
    assert extra <= {"close"}


@pytest.mark.parametrize(("kind", "twin"), PAIRS)
def test_twins_take_the_same_arguments(kind: type, twin: type) -> None:
    for name in {*public(kind), *(["__init__"] if kind is v1.ComputeHordeClient else [])}:
        theirs, ours = getattr(kind, name, None), getattr(twin, name)
        if inspect.isfunction(theirs):
            assert shape(ours) == shape(theirs), name
            assert not inspect.iscoroutinefunction(ours)


def shape(function: object) -> list[tuple[str, object, object]]:
    assert callable(function)
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("kind", "twin"), PAIRS)
def test_twins_are_documented_and_nothing_in_them_is_awaited(kind: type, twin: type) -> None:
    for name in public(twin):
        member = inspect.getattr_static(twin, name)
        if inspect.isfunction(member) and not name.startswith("_"):
            assert member.__doc__, name
            assert not AWAITED.search(member.__doc__), name
            assert not AWAITED.search(str(inspect.signature(member))), name
            takes_callback = "Callable" in str(inspect.signature(member))
            assert ("client's own thread" in " ".join(member.__doc__.split())) == takes_callback
    assert not AWAITED.search(twin.__doc__ or "")


def test_the_copied_dataclass_has_the_same_fields() -> None:
    ours, theirs = dataclasses.fields(sync.MappedJob), dataclasses.fields(v1.MappedJob)
    assert [field.name for field in ours] == [field.name for field in theirs]
    assert public(sync.MappedJob) == public(v1.MappedJob)


def test_importing_it_loads_neither_pydantic_nor_httpx() -> None:
    code = "import sys, compute_horde_sdk.v1.sync; print([m for m in ('pydantic', 'httpx') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


SCRIPT = """
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1.sync import ComputeHordeClient
import time

fake = FakeFacilitator()
client = ComputeHordeClient._over(fake.client())
made = [client.create_job("always_on.test", "SN0", "alpine") for _ in range(3)]
jobs = client.iter_jobs()
print(next(jobs).uuid == made[-1].uuid)
try:
    made[0].wait(timeout=0.05)
except TimeoutError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    "ending", ["", "import sys; sys.exit(0)", "import threading; threading.Thread(target=client.get_jobs).start()"]
)
def test_a_script_that_closes_nothing_ends_promptly_and_silently(ending: str) -> None:
    begun = time.monotonic()
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT + ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True", "ComputeHordeJobTimeoutError"]
    assert time.monotonic() - begun < 20
