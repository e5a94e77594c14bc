"""What an executor keeps for the next: clocks, states, the order of the output, the engine's log."""

import asyncio
import struct
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiodocker import DockerError
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.executor import order as orders
from compute_horde.executor import timing
from compute_horde.executor.docker_container import DockerHandle
from compute_horde.executor.docker_log import Demultiplexer
from compute_horde.executor.docker_options import container_config
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.fake import DIGEST, FACTS, FakeContainer, FakeRuntime
from compute_horde.executor.fake_miner import initial_request
from compute_horde.executor.limits import first_state
from compute_horde.executor.order import Order
from compute_horde.executor.runtime import STDERR, STDOUT, ContainerSpec, EngineFacts, Image, Sink
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.state import KEEP_SECONDS, Begun, Stamp, State
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.enums import Stage

JOB = "00000000-0000-4000-8000-000000000001"
IMAGE = Image(DIGEST, False)


class Suspended:
    """A clock that jumps while the event loop's stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: self.now, lambda: "boot", recheck_s=0)


async def test_a_timeout_ends_with_the_suspension() -> None:
    clock = Suspended()

    async def within(moment: float, now: float) -> None:
        async with clock.clocks().timeout_at(moment):
            await asyncio.sleep(0.001)
            clock.now = now
            await asyncio.sleep(0.01)

    await within(200, 199)
    with pytest.raises(TimeoutError):
        await within(200, 200)
    with pytest.raises(TimeoutError):
        await within(200, 0)


async def test_sleep_ends_with_the_suspension() -> None:
    clock = Suspended()
    sleeping = asyncio.create_task(clock.clocks().sleep_until(1_000_000))
    await asyncio.sleep(0.001)
    assert not sleeping.done()
    clock.now = 1_000_000
    await sleeping


def test_a_system_that_does_not_name_its_boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "_BOOT_ID", tmp_path / "none")
    assert timing.boot_id() == ""
    now = Stamp(boot="", elapsed=0, wall=0)
    assert not a_state().is_of_this_boot(now)


def a_state() -> State:
    return State(
        token="token",
        job_uuid=JOB,
        written=Stamp(boot="one", elapsed=1000, wall=50_000),
        keep_until=60_000,
        startup_until=1010,
        until=1100,
        begun=Begun(at=990, limit_s=60, image=IMAGE),
        stage=Stage.EXECUTION,
    )


@pytest.mark.parametrize(("wall", "shift"), [(50_030, -30), (49_000, 0)])
def test_after_a_reboot_deadlines_keep_their_distance_by_the_wall_clock(wall: float, shift: float) -> None:
    moved = a_state().as_of(Stamp(boot="two", elapsed=5, wall=wall))
    assert moved.startup_until == 5 + 10 + shift
    assert moved.until == 5 + 100 + shift
    assert moved.begun is not None
    assert moved.begun.at == 5 - 10 + shift
    assert moved.keep_until == 60_000


def test_within_one_boot_nothing_moves() -> None:
    state = a_state()
    assert state.as_of(Stamp(boot="one", elapsed=2000, wall=0)) is state


def test_a_job_is_kept_for_all_its_limits() -> None:
    now = Stamp(boot="one", elapsed=1000, wall=50_000)
    state = first_state(initial_request(JOB), "token", now, startup_until=1300)
    assert state.keep_until == 50_000 + 300 + 5 + 3 * 20 + KEEP_SECONDS
    without = first_state(initial_request(JOB, executor_timing=None), "token", now, startup_until=1300)
    assert without.keep_until == 50_000 + 300 + KEEP_SECONDS


# the order of two streams

CHUNKS = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=20)), max_size=30)


def joined(chunks: list[tuple[int, bytes]]) -> list[tuple[int, int]]:
    """Each byte with its stream, which is what the order is about."""
    return [(stream, byte) for stream, data in chunks for byte in data]


@given(first=CHUNKS, later=CHUNKS, data=st.data())
def test_what_is_read_again_comes_in_the_same_order(first: Any, later: Any, data: Any) -> None:
    path = Path(data.draw(st.just("/dev/shm"))) / "compute-horde-order-test"
    path.unlink(missing_ok=True)
    one = Order(path)
    taken = [piece for chunk in first for piece in one.arrange(*chunk)]
    one.close()
    one.close()
    whole = {s: b"".join(d for stream, d in first + later if stream == s) for s in (STDOUT, STDERR)}
    sizes = {s: sum(len(d) for stream, d in taken if stream == s) for s in whole}
    alone = next(((s, n) for s, n in sizes.items() if n == len(joined(taken))), (0, 0))
    again, parts = Order(path, alone), list[tuple[int, bytes]]()
    while any(whole.values()):
        stream = data.draw(st.sampled_from([s for s in whole if whole[s]]))
        size = data.draw(st.integers(1, 50))
        parts += again.arrange(stream, whole[stream][:size])
        whole[stream] = whole[stream][size:]
    parts += again.rest()
    again.close()
    path.unlink(missing_ok=True)
    assert joined(parts)[: len(joined(taken))] == joined(taken)
    assert sorted(joined(parts)) == sorted(joined(first + later))


def test_an_order_that_does_not_fit_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MAX_WAITING_BYTES", 10)
    one = Order(tmp_path / "order")
    list(one.arrange(STDOUT, b"out"))
    list(one.arrange(STDERR, b"e"))
    one.close()
    again = Order(tmp_path / "order")
    assert list(again.arrange(STDERR, b"1234567890")) == []
    assert list(again.arrange(STDERR, b"1")) == [(STDERR, b"12345678901")]
    assert list(again.arrange(STDOUT, b"x")) == [(STDOUT, b"x")]
    again.close()
    assert list(again.arrange(STDOUT, b"y")) == [(STDOUT, b"y")]


def test_an_order_is_bounded_and_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MAX_RECORDS", 2)
    one = Order(tmp_path / "order")
    for _ in range(5):
        assert list(one.arrange(STDOUT, b"x")) == [(STDOUT, b"x")]
    assert not (tmp_path / "order").exists(), "one stream alone is in order"
    for _ in range(5):
        assert list(one.arrange(STDERR, b"x")) == [(STDERR, b"x")]
    one.close()
    assert (tmp_path / "order").stat().st_size == 3 * 9
    full = Order(tmp_path / "none" / "order")
    assert list(full.arrange(STDOUT, b"x")) == [(STDOUT, b"x")]
    assert list(full.arrange(STDERR, b"y")) == [(STDERR, b"y")]
    assert list(full.arrange(STDOUT, b"z")) == [(STDOUT, b"z")]
    full.close()


# the engine's log


@given(CHUNKS, st.integers(1, 40))
def test_frames_are_taken_apart_wherever_they_are_cut(chunks: list[tuple[int, bytes]], step: int) -> None:
    wire = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in chunks)
    taken = list[tuple[int, bytes]]()
    reader = Demultiplexer(lambda stream, data: taken.append((stream, data)))
    for start in range(0, len(wire), step):
        reader.feed(wire[start : start + step])
    assert joined(taken) == joined(chunks)
    assert reader.log_bytes >= sum(len(data) for _, data in chunks)
    rest = list[tuple[int, bytes]]()
    half = len(chunks) // 2
    known = {s: sum(len(data) for stream, data in chunks[:half] if stream == s) for s in (STDOUT, STDERR)}
    again = Demultiplexer(lambda stream, data: rest.append((stream, data)), known)
    again.feed(wire)
    assert sorted(joined(rest)) == sorted(joined(chunks[half:]))
    assert again.taken == reader.taken


@pytest.mark.parametrize(
    ("drivers", "kind", "options"),
    [
        ({"local", "json-file"}, "local", {"max-size": "5000", "max-file": "2", "compress": "false"}),
        ({"json-file"}, "json-file", {"max-size": "5000", "max-file": "2"}),
        ({"syslog"}, "none", {}),
    ],
)
def test_the_log_that_the_engine_keeps(drivers: set[str], kind: str, options: dict[str, str]) -> None:
    facts = EngineFacts("1", True, True, frozenset(), 1, frozenset(drivers))
    spec = ContainerSpec(token="token", image=IMAGE)
    config = container_config(spec, ExecutorSettings(log_bytes=5000), facts)["HostConfig"]["LogConfig"]
    assert config == {"Type": kind, "Config": options}


class Gone:
    """A container whose engine went away."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.id, self.docker = "id", self

    def _query(self, *_: Any, **__: Any) -> Any:
        raise self._error

    async def show(self) -> Any:
        raise self._error

    async def start(self) -> None:
        raise self._error

    def attach(self, **_: Any) -> Any:
        return self

    async def _init(self) -> None: ...

    async def read_out(self) -> None: ...

    async def close(self) -> None: ...


def handle(error: Exception) -> DockerHandle:
    return DockerHandle(cast("Any", Gone(error)))


async def test_a_log_that_cannot_be_read_may_be_cut() -> None:
    one = handle(DockerError(501, "configured logging driver does not support reading"))
    one.read_again(lambda *_: None)
    assert one._pump is not None
    await one._pump
    assert one.may_be_cut
    await one.release()


async def test_the_age_of_a_container_whose_engine_is_gone() -> None:
    with pytest.raises(JobFailure) as caught:
        await handle(aiohttp.ServerDisconnectedError()).age()
    assert caught.value.problem.code == "engine_unavailable"


async def test_starting_what_runs_is_fine() -> None:
    await handle(DockerError(304, "not modified")).start(lambda *_: None)
    with pytest.raises(DockerError):
        await handle(DockerError(400, "no such command")).start(lambda *_: None)


async def test_a_fake_container_that_was_never_started() -> None:
    async def program(_: Any) -> int:
        return 0

    sink: Sink = lambda *_: None  # noqa: E731 - its type is what matters
    one = FakeContainer(ContainerSpec(token="token", image=IMAGE), program, FakeRuntime(facts=FACTS), sink)
    with pytest.raises(JobFailure):
        await one.wait()
    await one.stop(0)
    await one.remove()
