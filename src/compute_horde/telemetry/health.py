"""Whether a service lives, and whether it can do its work: named checks, each with a time limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from sqlalchemy import select

from compute_horde.storage.database import Database

CHECK_LIMIT_S = 2.0
OK, FAILED = "ok", "failed"

Check: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when all is well; raises :class:`NotReady`, or anything else, when not. It may be cancelled."""


class NotReady(Exception):  # noqa: N818 - an answer rather than a fault
    """The text goes to whoever asks, strangers too: no addresses, no secrets."""


@dataclass(frozen=True)
class Finding:
    """What one check found. ``why``: empty when all is well. ``seconds``: how long it took."""

    why: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        told = {"status": FAILED, "why": self.why} if self.why else {"status": OK}
        return {**told, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True)
class Report:
    """What all checks found. ``status``: ``ok``, or the service's word for not being so."""

    status: str
    checks: Mapping[str, Finding]

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def http_status(self) -> int:
        return 200 if self.ok else 503

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "checks": {name: found.to_json() for name, found in self.checks.items()}}


_NO_CHECKS: Mapping[str, Check] = MappingProxyType({})


class Health:
    """``ready``: what the service needs to do its work. ``live``: what only a restart can mend; that the loop
    turns is known from the answer itself. ``limit_s`` ends each check, ``unready`` is the word for a failure.
    """

    def __init__(
        self,
        ready: Mapping[str, Check],
        live: Mapping[str, Check] = _NO_CHECKS,
        *,
        limit_s: float = CHECK_LIMIT_S,
        unready: str = "unavailable",
    ) -> None:
        self._ready, self._live, self._limit, self._unready = ready, live, limit_s, unready

    async def live(self) -> Report:
        return await self._report(self._live)

    async def ready(self) -> Report:
        return await self._report(self._ready)

    async def _report(self, checks: Mapping[str, Check]) -> Report:
        findings = await asyncio.gather(*(self._find(check) for check in checks.values()))
        well = all(not found.why for found in findings)
        return Report(OK if well else self._unready, dict(zip(checks, findings, strict=True)))

    async def _find(self, check: Check) -> Finding:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        why = await _why(check, self._limit)
        return Finding(why, loop.time() - begun)


async def _why(check: Check, limit_s: float) -> str:
    """Empty when all is well. Of a foreign error only the kind is told, since its text may name a secret."""
    try:
        async with asyncio.timeout(limit_s):
            await check()
    except NotReady as error:
        return str(error)
    except TimeoutError:
        return "no answer in time"
    except Exception as error:  # whatever the checked part raises
        return type(error).__name__
    return ""


def flag(is_true: Callable[[], bool], why: str) -> Check:
    """A check of something that the service knows by itself; ``why`` is told while it is not so."""

    async def check() -> None:
        if not is_true():
            raise NotReady(why)

    return check


def answers(database: Database) -> Check:
    """A check that the database answers."""

    async def check() -> None:
        async with database.read() as connection:
            await connection.execute(select(1))

    return check


def remembered(check: Check, for_s: float, *, clock: Callable[[], float] = time.monotonic) -> Check:
    """A check whose good answer holds for some seconds: for what is costly to ask. A bad one is asked again."""
    good_until = float("-inf")

    async def once() -> None:
        nonlocal good_until
        if clock() < good_until:
            return
        await check()
        good_until = clock() + for_s

    return once
