"""The one connection that a process keeps."""

import asyncio
import time
from typing import Any

import pytest
from tests.integration.storage.waits import until
from tests.postgres import Postgres, running_postgres

from compute_horde.storage.address import read_address
from compute_horde.storage.errors import DatabaseUnavailable, StorageError
from compute_horde.storage.session import Session


async def nothing(_connection: Any) -> None:
    """What a user without needs prepares."""


async def test_one_at_a_time_uses_it(postgres_url: str) -> None:
    session = Session(read_address(postgres_url), nothing)
    with pytest.raises(DatabaseUnavailable, match="lost"):
        async with session.use():
            pass
    await session.start()

    async def ask(number: int) -> int:
        async with session.use() as connection:
            return int(await connection.fetchval("SELECT $1::int FROM pg_sleep(0.01)", number))

    assert await asyncio.gather(*(ask(number) for number in range(5))) == [0, 1, 2, 3, 4]
    await session.close()
    await session.close()


async def test_a_preparation_that_fails_is_tried_again(postgres: Postgres, postgres_url: str) -> None:
    fail = True

    async def prepare(connection: Any) -> None:
        if fail:
            await connection.execute("DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$")

    session = Session(read_address(postgres_url), prepare, check_s=0.05)
    with pytest.raises(StorageError):
        await session.start()
    assert not session.connected
    fail = False
    await session.start()
    fail = True
    name = postgres_url.rpartition("/")[2]
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    async def is_lost() -> bool:
        return not session.connected

    async def is_back() -> bool:
        return session.connected

    await until(is_lost)
    await asyncio.sleep(0.3)
    assert not session.connected
    fail = False
    await until(is_back)
    await session.close()


async def test_a_server_that_hangs_does_not_hold_up_the_end() -> None:
    with running_postgres() as server:
        session = Session(read_address(server.url("postgres")), nothing)
        await session.start()
        server.pause()
        started = time.monotonic()
        await session.close()
        assert time.monotonic() - started < 5
        server.resume()
