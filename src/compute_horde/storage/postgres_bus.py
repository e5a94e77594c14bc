"""The bus between processes: LISTEN and NOTIFY on one channel, with the topic as payload.

A notification leaves after the change is committed, in a transaction of its own, and not in the one that makes
the change. There it would be a further trip for every writer, and PostgreSQL lets transactions that notify commit
only one after the other, each with its write to the disk. What is lost so is lost with the process that dies
between the two, and found by the catch-up: each subscriber is woken every few seconds without a reason.
"""

import asyncio
import contextlib
from typing import Any

from compute_horde.storage.address import Address
from compute_horde.storage.errors import StorageError
from compute_horde.storage.session import Session
from compute_horde.storage.waiting import Waiting

CATCH_UP_S = 5.0
"""The longest that a subscriber is left alone."""
CATCH_UP_PARTS = 10
"""Subscribers are woken a part at a time, so that they do not all read at once."""
CHANNEL = "compute_horde"
MAX_TOPIC_BYTES = 7999
MOST_UNSENT = 10_000
"""Topics that are kept while the database is away. What is dropped beyond is caught up with by the others."""
_NOTIFY = "SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic"


class PostgresBus:
    """A :class:`~compute_horde.storage.bus.Bus` for all processes on one database. One connection each."""

    def __init__(self, address: Address, catch_up_s: float = CATCH_UP_S) -> None:
        self._waiting = Waiting()
        self.subscribe = self._waiting.subscribe
        self._catch_up_s = catch_up_s
        self._session = Session(address, self._listen, check_s=catch_up_s)
        self._unsent: dict[str, None] = {}
        self._to_send = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pid = 0

    @property
    def connected(self) -> bool:
        """Whether other processes are heard at this moment."""
        return self._session.connected

    def notify(self, topic: str) -> None:
        """Subscribers here are woken at once; the others get one notification for several that come together."""
        if len(topic.encode()) > MAX_TOPIC_BYTES:
            raise ValueError(f"a topic has at most {MAX_TOPIC_BYTES} bytes")
        self._waiting.wake(topic)
        if self._tasks and len(self._unsent) < MOST_UNSENT:
            self._unsent[topic] = None
            self._to_send.set()

    async def start(self) -> None:
        """:raises DatabaseUnavailable: the first connection fails. Later ones are tried for ever."""
        await self._session.start()
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._catch_up())]

    async def close(self) -> None:
        """What was notified before is sent, if the database is there."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._unsent:
            with contextlib.suppress(StorageError):
                await self._send_some()
        await self._session.close()

    async def _listen(self, connection: Any) -> None:
        self._pid = connection.get_server_pid()
        await connection.execute("SET synchronous_commit = off")  # a notification needs no write to the disk
        await connection.add_listener(CHANNEL, self._hear)
        self._waiting.wake_all()  # something may have happened meanwhile
        self._to_send.set()

    def _hear(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        if pid != self._pid:  # our own subscribers know already
            self._waiting.wake(str(payload))

    async def _send(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            with contextlib.suppress(StorageError):  # sent when the session is back
                await self._send_some()

    async def _send_some(self) -> None:
        topics, self._unsent = self._unsent, {}
        try:
            async with self._session.use() as connection:
                await connection.execute(_NOTIFY, CHANNEL, list(topics))
        except BaseException:
            self._unsent = topics | self._unsent
            raise

    async def _catch_up(self) -> None:
        part = 0
        while True:
            await asyncio.sleep(self._catch_up_s / CATCH_UP_PARTS)
            self._waiting.wake_part(part, CATCH_UP_PARTS)
            part = (part + 1) % CATCH_UP_PARTS
