"""Pure rules of the miner: who is known, what a receipt must say, what limits a job has."""

import uuid
from pathlib import Path

import pytest

from compute_horde.chain.keys import verify
from compute_horde.miner.auth import Gate
from compute_horde.miner.connection import Connection
from compute_horde.miner.job import limits_of
from compute_horde.miner.receipts import receipt_problem
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.tables import metadata
from compute_horde.miner.testing import ALICE, BOB, MINER, TEST, initial, started
from compute_horde.protocol.validator_miner import ExecutorTiming, ValidatorAuthForMiner
from compute_horde.storage.database import Database
from compute_horde.storage.migrate import migrate
from compute_horde.transport.memory import memory_pair

GATE = Gate(MINER.ss58_address, verify)


@pytest.mark.parametrize(("age", "admitted"), [(0, True), (10, True), (11, False), (-60, True), (-61, False)])
def test_the_age_of_an_authentication(age: int, admitted: bool) -> None:
    auth = ValidatorAuthForMiner.make(ALICE, MINER.ss58_address, 1_000_000)
    refusal = GATE.check(ALICE.ss58_address, auth, 1_000_000 + age)
    assert (refusal is None) is admitted
    assert refusal is None or refusal.code == "TOKEN_TOO_OLD"


def test_who_is_known() -> None:
    validators = frozenset({ALICE.ss58_address})
    assert GATE.knows(ALICE.ss58_address, validators)
    assert not GATE.knows(BOB.ss58_address, validators)
    trusted = Gate.trusted(BOB.ss58_address, verify)
    assert trusted.knows(BOB.ss58_address, validators)
    assert not trusted.knows(ALICE.ss58_address, validators)


def test_a_good_receipt_and_each_way_to_be_wrong() -> None:
    payload = started(str(uuid.uuid4()))
    signature = payload.sign(ALICE)
    assert receipt_problem(payload, signature, verify, miner_hotkey=MINER.ss58_address) is None
    assert receipt_problem(payload, signature, verify, miner_hotkey="5Other") is not None
    assert receipt_problem(payload, payload.sign(BOB), verify) is not None
    assert receipt_problem(payload, "no hex", verify) is not None


def test_limits_come_from_the_timing_or_the_single_timeout() -> None:
    job = str(uuid.uuid4())
    timed = limits_of(initial(job, timing=ExecutorTiming(download_time_limit=3, upload_time_limit=-5)), 10)
    assert (timed.download, timed.execution, timed.upload, timed.startup) == (3, 0, 0, 10)
    single = initial(job).model_copy(update={"executor_timing": None})
    assert limits_of(single, 0).execution == 300
    assert limits_of(single.model_copy(update={"timeout_seconds": 7}), 0).execution == 7


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HORDE_MINER_EXECUTORS", '{"always_on.test": 3}')
    monkeypatch.setenv("HORDE_MINER_PORT", "0")
    settings = MinerSettings()
    assert settings.executors == {TEST: 3}
    assert settings.port == 0


async def test_a_connection_that_ended_drops_what_is_posted() -> None:
    near, far = memory_pair()
    connection = Connection(far, ALICE.ss58_address)
    connection.post("one")
    connection.finish()
    await connection.write()
    connection.post("two")
    assert not connection.alive
    assert await near.receive() == "one"


async def test_the_migrations_make_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    import sqlalchemy as sa

    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'schema.db'}")
    await migrate(database, "miner")
    async with database.begin() as connection:
        found = await connection.run_sync(
            lambda sync: {
                table: {column["name"]: str(column["type"]) for column in sa.inspect(sync).get_columns(table)}
                for table in metadata.tables
            }
        )
    await database.close()
    assert found == {
        table.name: {column.name: str(column.type) for column in table.columns}
        for table in metadata.tables.values()
    }
