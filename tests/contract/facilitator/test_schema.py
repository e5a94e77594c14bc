"""The migrations make the tables that the code uses, and can be taken back."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from compute_horde.facilitator.tables import metadata
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate, unmigrate


def differences(connection: Connection) -> list[object]:
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    return [change for change in found if change[0] != "remove_index"]  # indexes are the migration's alone


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_migrations_match_the_tables_and_go_back(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/f.db")
    await migrate(database, "facilitator")
    await migrate(database, "facilitator")
    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
    await unmigrate(database, "facilitator")
    async with database.begin() as connection:
        assert await connection.run_sync(tables) <= {"alembic_version"}
    await database.close()
