"""The person is told when the facilitator is away, and when the local horde is elsewhere now."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compute_horde.cli.key import KeySource
from compute_horde.cli.link import Link, Sleep, connect
from compute_horde.cli.place import Place
from compute_horde.cli.trouble import FORGET_AFTER_S, TELL_AFTER_S, Trouble
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeConnectionError

from .conftest import Served, printed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_attempts_that_fail_for_some_seconds_are_trouble() -> None:
    clock = Clock()
    trouble = Trouble(clock)
    lasting = [trouble.lasting]
    for later in (0, TELL_AFTER_S, FORGET_AFTER_S):  # the last as when a stream is opened again now and then
        clock.now += later
        lasting.append(trouble.lasting)
        trouble.note()
        lasting.append(trouble.lasting)
    assert lasting == [False, False, False, False, True, False, False]


async def test_a_pause_is_noted() -> None:
    clock = Clock()
    trouble = Trouble(clock)
    await trouble.sleep(0)
    clock.now += TELL_AFTER_S
    await trouble.sleep(0)
    assert trouble.lasting


def place(home: Path | None = None, address: str = "http://old.test") -> Place:
    return Place(address, "validator", KeySource(Path("none"), ""), None, home)


def context(make: Any) -> Any:
    """Stands for typer's context, of which only ``obj`` is used."""
    return SimpleNamespace(obj=make)


async def test_trouble_is_told_once_and_so_is_its_end(fake: Served, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    link = Link(context(lambda place, sleep: fake.client()), place(), trouble=Trouble(clock))

    async def work() -> None:
        link.trouble.note()
        clock.now += TELL_AFTER_S
        link.trouble.note()
        await asyncio.sleep(0.25)
        clock.now += FORGET_AFTER_S
        await asyncio.sleep(0.15)

    async with link:
        await link.during(work(), lambda: "working")
    assert capsys.readouterr().err.splitlines() == [
        "the facilitator at http://old.test does not answer; trying again",
        "the facilitator answers again",
    ]


async def test_a_local_horde_that_moved_is_followed(
    fake: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "horde.json").write_text(json.dumps({"facilitator_url": "http://old.test"}))
    clients: list[str] = []

    def make(place: Place, sleep: Sleep) -> ComputeHordeClient:
        clients.append(place.facilitator)
        return fake.client()

    async with Link(context(make), place(tmp_path), trouble=Trouble(Clock())) as link:
        job = await link.client.create_job("always_on.test", "SN0", "busybox")

        async def lost() -> None:
            (tmp_path / "horde.json").write_text(json.dumps({"facilitator_url": "http://new.test"}))
            fake.advance(job.uuid, "completed", printed())
            raise ComputeHordeConnectionError("away")

        job.wait = lambda timeout=None: lost()  # type: ignore[method-assign] # as when the horde went away
        ended = await link.ended(job, timeout=5)
        assert ended.status.is_successful()
        assert await link.follow_move() is False, "it is there already"
    assert clients == ["http://old.test", "http://new.test"]
    assert "the local horde is at http://new.test now" in capsys.readouterr().err


async def test_a_horde_that_moved_is_noticed_while_waiting(fake: Served, tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "horde.json").write_text(json.dumps({"facilitator_url": "http://old.test"}))
    link = Link(context(lambda place, sleep: fake.client()), place(tmp_path), trouble=Trouble(clock))
    async with link:
        job = await link.client.create_job("always_on.test", "SN0", "busybox")
        waiting = asyncio.ensure_future(link.ended(job))
        await asyncio.sleep(0.05)
        link.trouble.note()
        clock.now += TELL_AFTER_S
        link.trouble.note()
        (tmp_path / "horde.json").write_text(json.dumps({"facilitator_url": "http://new.test"}))
        await asyncio.sleep(0.2)
        fake.advance(job.uuid, "completed", printed())
        assert (await waiting).status.is_successful()


async def test_an_error_stays_one_where_nothing_moved(fake: Served) -> None:
    async with Link(context(lambda place, sleep: fake.client()), place()) as link:
        job = await link.client.create_job("always_on.test", "SN0", "busybox")
        await link.client.aclose()

        async def closed(timeout: float | None = None) -> None:
            raise ComputeHordeConnectionError("away")

        job.wait = closed  # type: ignore[method-assign] # as when the horde went away
        with pytest.raises(ComputeHordeConnectionError):
            await link.ended(job)


def test_the_clients_pauses_are_ours(tmp_path: Path) -> None:
    from bittensor_wallet import Wallet

    Wallet("w", "h", str(tmp_path)).create_new_hotkey(use_password=False, overwrite=False, suppress=True)
    trouble = Trouble()
    where = Place("http://a.test", "validator", KeySource.of_wallet(str(tmp_path), "w", "h"), "q")
    client = connect(where, trouble.sleep)
    assert client._wiring.sleep == trouble.sleep
    assert (client.facilitator_url, client.job_queue) == ("http://a.test/", "q")
    assert ComputeHordeClient._wiring.sleep is asyncio.sleep
