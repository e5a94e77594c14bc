"""The bus: one contract for both databases; on PostgreSQL between processes and over lost connections."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from tests.integration.storage.waits import until
from tests.postgres import running_postgres

from compute_horde.storage import postgres_bus
from compute_horde.storage.address import read_address
from compute_horde.storage.bus import Bus, LocalBus, make_bus
from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.storage.postgres_bus import PostgresBus

NEVER = 3600.0
"""No catch-up: what is heard was said."""


@pytest.fixture
async def bus(database_url: str) -> AsyncIterator[Bus]:
    database = Database(database_url)
    made = make_bus(database, NEVER)
    await made.start()
    yield made
    await made.close()
    await made.close()
    await database.close()


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[PostgresBus, PostgresBus]]:
    buses = PostgresBus(read_address(postgres_url), NEVER), PostgresBus(read_address(postgres_url), NEVER)
    for each in buses:
        await each.start()
    yield buses
    for each in buses:
        await each.close()


async def heard(event: asyncio.Event, within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        await event.wait()
    event.clear()


async def connected(*buses: PostgresBus) -> None:
    async def all_are() -> bool:
        return all(bus.connected for bus in buses)

    await until(all_are)


async def lost(*buses: PostgresBus) -> None:
    async def all_are() -> bool:
        return not any(bus.connected for bus in buses)

    await until(all_are)


async def test_whoever_subscribed_is_woken_at_once(bus: Bus) -> None:
    bus.notify("nobody listens")
    with bus.subscribe("job") as first, bus.subscribe("job") as second, bus.subscribe("job:2") as other:
        bus.notify("job")
        assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
    bus.notify("job")


async def test_before_the_start_and_after_the_end_it_works_within_the_process(database_url: str) -> None:
    database = Database(database_url)
    bus = make_bus(database)
    assert isinstance(bus, LocalBus if database.dialect == "sqlite" else PostgresBus)
    with bus.subscribe("job") as event:
        bus.notify("job")
        await heard(event)
        await bus.close()
        bus.notify("job")
        await heard(event)
    await database.close()


async def test_other_processes_are_woken(pair: tuple[PostgresBus, PostgresBus]) -> None:
    here, there = pair
    with here.subscribe("é:1") as own, there.subscribe("é:1") as event, there.subscribe("other") as other:
        here.notify("é:1")
        await heard(own)
        await heard(event)
        there.notify("other")  # this one's echo, and all before it, have come when the other process answers
        with here.subscribe("end") as end:
            there.notify("end")
            await heard(end)
        assert (own.is_set(), other.is_set()) == (False, True)


async def test_a_real_process_is_heard(pair: tuple[PostgresBus, PostgresBus], postgres_url: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from compute_horde.storage.bus import make_bus\n"
        "from compute_horde.storage.database import Database\n"
        "async def main():\n"
        "    bus = make_bus(Database(sys.argv[1]))\n"
        "    await bus.start()\n"
        "    [bus.notify(f'job:{n}') for n in range(100)]\n"
        "    await bus.close()\n"  # sends what was notified before
        "asyncio.run(main())\n"
    )
    with pair[0].subscribe("job:99") as event:
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, postgres_url], check=True)
        await heard(event)


async def test_a_notification_that_is_missed_is_caught_up_with(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_bus, "CATCH_UP_PARTS", 3)
    bus = PostgresBus(read_address(postgres_url), 0.3)
    await bus.start()
    with bus.subscribe("a") as a, bus.subscribe("b") as b, bus.subscribe("c") as c:
        for event in (a, b, c, a):
            await heard(event)
    await bus.close()


async def test_a_server_that_was_away() -> None:
    with running_postgres() as server:
        address = read_address(server.url(server.fresh()))
        here, there = PostgresBus(address, NEVER), PostgresBus(address, NEVER)
        await here.start()
        await there.start()
        assert here.connected
        with there.subscribe("job") as event, there.subscribe("meanwhile") as kept:
            await asyncio.to_thread(server.kill)
            await lost(here, there)
            here.notify("meanwhile")
            server.start()
            await heard(event)  # something may have happened
            await connected(here, there)
            await heard(kept)
            event.clear()
            here.notify("job")
            await heard(event)
        await asyncio.to_thread(server.kill)
        await here.close()  # with something unsent, and nobody there
        here.notify("too late")
        await there.close()
        with pytest.raises(DatabaseUnavailable):
            await here.start()


async def test_a_server_that_hangs_is_left_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_horde.storage.postgres.CONNECT_TIMEOUT_S", 0.3)
    with running_postgres() as server:
        bus = PostgresBus(read_address(server.url(server.fresh())), 0.3)
        await bus.start()
        server.pause()
        bus.notify("job")
        await lost(bus)
        server.resume()
        await connected(bus)
        await bus.close()


async def test_what_is_kept_for_later_is_bounded(
    pair: tuple[PostgresBus, PostgresBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_bus, "MOST_UNSENT", 2)
    here, there = pair
    with there.subscribe("2") as event, there.subscribe("3") as dropped:
        for topic in ("1", "2", "2", "3"):
            here.notify(topic)
        await heard(event)
        here.notify("2")
        await heard(event)
        assert not dropped.is_set()
    with pytest.raises(ValueError, match="7999 bytes"):
        here.notify("x" * 8000)
