"""Server-sent events: every new status of a user's jobs, as it happens (ours)."""

from collections.abc import AsyncIterator

from compute_horde.facilitator.job_view import job_event
from compute_horde.facilitator.login import Session
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.streams import KEEP_ALIVE, KEEP_ALIVE_SECONDS, RETRY, Streams, happened
from compute_horde.facilitator.topics import user_topic

BATCH = 50


class Events:
    """Streams of events. The database holds them; the bus only wakes those who wait.

    A new status costs one query for each stream of its user, however many jobs that user waits for.
    """

    def __init__(self, store: JobStore, streams: Streams, keep_alive_s: float = KEEP_ALIVE_SECONDS) -> None:
        self._store, self._streams, self._keep_alive = store, streams, keep_alive_s

    async def start_after(self, asked: int | None) -> int:
        """The position to begin behind: the one asked for, or now.

        A position that was never given out is of a database that was set up anew: it counts as now.
        """
        last = await self._store.last_event()
        return last if asked is None else min(asked, last)

    async def stream(self, session: Session, after: int, *, knows_cancelled: bool = False) -> AsyncIterator[bytes]:
        """SSE text, until the client leaves, the login ends or the service stops. A client then resumes.

        The first lines come at once and name the position, so that whoever is cut off before anything happened
        misses nothing either.
        """
        with self._streams.woken_by(user_topic(session.hotkey)) as woken:
            yield f": connected\n{RETRY}id: {after}\n\n".encode()
            while self._streams.is_open(session):
                woken.clear()
                rows = await self._store.events_after(session.hotkey, after, BATCH)
                for row in rows:
                    after = row["id"]
                    event = job_event(row, knows_cancelled=knows_cancelled)
                    yield f"id: {after}\nevent: status\ndata: {event.to_frame()}\n\n".encode()
                if len(rows) < BATCH and not await happened(woken, self._keep_alive):
                    yield KEEP_ALIVE
