"""Bring a service's database to the newest schema. Migrations are Alembic revisions, one folder a service.

They run on a live system: processes of the release before go on working with the new schema. So a revision only
adds (expand); what nobody uses any more is removed by a revision of a later release (contract). For the same
reason a process that is started again on a schema newer than its own goes on with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from weakref import WeakKeyDictionary

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseMisconfigured, DatabaseUnavailable

log = structlog.get_logger(__name__)

LOCK_TIMEOUT = "2s"
"""A change of a table waits no longer for those who use it, since all who come later wait behind it."""
ATTEMPTS = 30
PAUSE_S = 0.5
TABLE_IN_USE = "55P03"
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('compute-horde migrates', 0))")
_ITS_OWN = {"facilitator": "job", "validator": "outbox", "miner": "job_messages"}
"""A table of each service that no other has, from its first revision on."""


async def migrate(database: Database, service: str, revision: str = "head") -> None:
    """Upgrade; a database that is already there is left as it is. ``service``: facilitator, validator or miner.

    Processes that start together wait for each other.

    :raises DatabaseMisconfigured: the database is another service's.
    :raises DatabaseUnavailable:
    """
    async with _patient(database) as patient:
        for _ in range(ATTEMPTS - 1):
            try:
                await _run(patient, service, revision)
            except DatabaseUnavailable as error:
                if error.code != TABLE_IN_USE:
                    raise
                await asyncio.sleep(PAUSE_S)
            else:
                return
        await _run(patient, service, revision)


async def unmigrate(database: Database, service: str, revision: str = "base") -> None:
    """Downgrade; for tests of the way back."""
    async with _alone(), database.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(_config(service, sync), revision))


_running: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _alone() -> asyncio.Lock:
    """Alembic keeps its context in module globals: one migration at a time."""
    return _running.setdefault(asyncio.get_running_loop(), asyncio.Lock())


@contextlib.asynccontextmanager
async def _patient(database: Database) -> AsyncIterator[Database]:
    """The same database, where a statement may take as long as a large table needs."""
    if database.dialect == "sqlite":
        yield database
        return
    patient = Database(database.url, command_timeout_s=None)
    try:
        yield patient
    finally:
        await patient.close()


async def _run(database: Database, service: str, revision: str) -> None:
    async with _alone(), database.begin() as connection:
        if database.dialect == "postgresql":  # on SQLite this transaction is the only one that writes
            await connection.execute(_ALONE)
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        await connection.run_sync(_upgrade, service, revision)


def _upgrade(connection: Connection, service: str, revision: str) -> None:
    config = _config(service, connection)
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and not inspect(connection).has_table(_ITS_OWN[service]):
        raise DatabaseMisconfigured(f"this database is not the {service}'s: each service needs one of its own")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        log.warning("the database is newer than this release", service=service, revision=current)
        return
    command.upgrade(config, revision)


def _config(service: str, connection: Connection) -> Config:
    root = files("compute_horde.storage") / "migrations"
    config = Config()
    config.set_main_option("script_location", str(root))
    config.set_main_option("version_locations", str(root / service))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
