"""What was committed gets to the disk before it is promised: once for many who wait, and never too early."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from compute_horde.storage.database import Database
from compute_horde.storage.errors import DatabaseUnavailable
from compute_horde.storage.settling import Settling, log_of


class Disk:
    """Takes the place of ``os.fdatasync``; lets one through at a time when ``held``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_the_log_of_the_file_is_what_gets_to_the_disk(tmp_path: Path, disk: Disk) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    async with database.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
    await database.settled()
    assert disk.synced == [f"{tmp_path}/a.db-wal"]
    await database.close()


async def test_those_who_wait_at_the_same_time_share_a_trip(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a.db-wal").touch()
    settling = Settling(log_of(tmp_path / "a.db"))
    await asyncio.gather(*(settling.settled() for _ in range(50)))
    assert len(disk.synced) == 1


async def test_a_trip_that_has_begun_is_no_good_for_what_is_committed_after(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a.db-wal").touch()
    settling = Settling(log_of(tmp_path / "a.db"))
    disk.gate.clear()
    first = asyncio.create_task(settling.settled())
    await asyncio.sleep(0.02)
    later = [asyncio.create_task(settling.settled()) for _ in range(3)]
    await asyncio.sleep(0.02)
    disk.gate.set()
    await asyncio.gather(first, *later)
    assert len(disk.synced) == 2
    await settling.close()


async def test_a_waiter_that_gives_up_takes_nobody_with_it(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a.db-wal").touch()
    settling = Settling(log_of(tmp_path / "a.db"))
    disk.gate.clear()
    given_up, other = (asyncio.create_task(settling.settled()) for _ in range(2))
    await asyncio.sleep(0.02)
    given_up.cancel()
    disk.gate.set()
    await other
    assert len(disk.synced) == 1


async def test_a_disk_that_does_not_take_it_says_so_and_is_tried_again(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a.db-wal").touch()
    settling = Settling(log_of(tmp_path / "a.db"))
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(DatabaseUnavailable, match="Input/output error"):
        await settling.settled()
    disk.error = None
    await settling.settled()
    await settling.close()


async def test_there_is_nothing_to_wait_for_without_a_file_or_a_log(tmp_path: Path, disk: Disk) -> None:
    await Settling(None).settled()
    await Settling(log_of(tmp_path / "closed.db")).settled()
    assert disk.synced == []
