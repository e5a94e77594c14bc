"""What was settled outlives a PostgreSQL that is killed; the commits between do not wait for the disk."""

import asyncio

import sqlalchemy as sa
from tests.postgres import running_postgres

from compute_horde.storage.database import Database


async def test_what_was_settled_outlives_the_server() -> None:
    with running_postgres(durable=True) as server:
        url = server.url(server.fresh())
        database = Database(url)
        async with database.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
            assert (await connection.execute(sa.text("SHOW synchronous_commit"))).scalar() == "off"
        for number in range(50):
            async with database.begin() as connection:
                await connection.execute(sa.text("INSERT INTO t VALUES (:a)"), {"a": number})
        await asyncio.gather(*(database.settled() for _ in range(10)))
        server.kill()
        await database.close()
        server.start()
        database = Database(url)
        async with database.read() as connection:
            assert (await connection.execute(sa.text("SELECT count(*) FROM t"))).scalar() == 50
        await database.close()


async def test_the_operator_may_have_every_commit_wait_for_the_disk() -> None:
    with running_postgres() as server:
        database = Database(server.url(server.fresh()) + "?synchronous_commit=on")
        async with database.read() as connection:
            assert (await connection.execute(sa.text("SHOW synchronous_commit"))).scalar() == "on"
        await database.close()
