"""Bring a service's database to the newest schema. Migrations are Alembic revisions, one folder a service."""

import asyncio
from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from compute_horde.storage.database import Database


def _config(service: str, connection: Connection) -> Config:
    root = files("compute_horde.storage") / "migrations"
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("version_locations", str(root / service))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, service: str, revision: str) -> None:
    command.upgrade(_config(service, connection), revision)


def _downgrade(connection: Connection, service: str, revision: str) -> None:
    command.downgrade(_config(service, connection), revision)


async def migrate(database: Database, service: str, revision: str = "head") -> None:
    """Upgrade; a database that is already there is left as it is. ``service``: facilitator, validator or miner."""
    async with _migrating, database.begin() as connection:
        await connection.run_sync(_upgrade, service, revision)


async def unmigrate(database: Database, service: str, revision: str = "base") -> None:
    """Downgrade; for tests of the way back."""
    async with _migrating, database.begin() as connection:
        await connection.run_sync(_downgrade, service, revision)


_migrating = asyncio.Lock()  # Alembic keeps its context in module globals: one migration at a time
