"""Server-sent events: every new status of a user's jobs, as it happens (ours)."""

import asyncio
from collections.abc import AsyncGenerator

from compute_horde.facilitator.job_view import Viewer, job_event
from compute_horde.facilitator.login import Session
from compute_horde.facilitator.places import Place, Places
from compute_horde.facilitator.store import JobStore
from compute_horde.facilitator.streams import KEEP_ALIVE, KEEP_ALIVE_SECONDS, RETRY, Streams, happened
from compute_horde.facilitator.topics import places_topic, user_topic
from compute_horde.protocol.sdk_facilitator import JobQueueEvent

BATCH = 50
_OLDEST = Viewer()


class Events:
    """Streams of events. The database holds them; the bus only wakes those who wait.

    A new status costs one query for each stream of its user, however many jobs that user waits for; so does a new
    place of a waiting job.
    """

    def __init__(
        self, store: JobStore, places: Places, streams: Streams, keep_alive_s: float = KEEP_ALIVE_SECONDS
    ) -> None:
        self._store, self._places, self._streams, self._keep_alive = store, places, streams, keep_alive_s

    async def start_after(self, session: Session, asked: int | None) -> int:
        """The position to begin behind: the one asked for, or now.

        A position beyond the user's newest is of a database that was set up anew, or its entries were forgotten:
        it counts as now.
        """
        last = await self._store.last_event(session.hotkey)
        return last if asked is None else min(asked, last)

    async def stream(self, session: Session, after: int, viewer: Viewer = _OLDEST) -> AsyncGenerator[bytes, None]:
        """SSE text, until the client leaves, the login ends or the service stops. A client then resumes.

        The first lines come at once and name the position, so that whoever is cut off before anything happened
        misses nothing either.
        """
        user = session.hotkey
        with self._streams.woken_by(user_topic(user)) as woken, self._streams.noted(places_topic(user)) as moved:
            places = _ShownPlaces(self._places, user, moved) if viewer.knows_queue else None
            yield f": connected\n{RETRY}id: {after}\n\n".encode()
            while self._streams.is_open(session):
                woken.clear()
                rows = await self._store.events_after(user, after, BATCH)
                for row in rows:
                    after = row["id"]
                    yield f"id: {after}\nevent: status\ndata: {job_event(row, viewer).to_frame()}\n\n".encode()
                for text in await places.news() if places else ():
                    yield text
                if len(rows) < BATCH and not await happened(woken, self._keep_alive):
                    yield KEEP_ALIVE


class _ShownPlaces:
    """The places that one stream was told of."""

    def __init__(self, places: Places, user: str, moved: asyncio.Event) -> None:
        self._places, self._user, self._moved = places, user, moved
        self._shown: dict[str, Place] = {}
        moved.set()  # what is known already is news to this client

    async def news(self) -> list[bytes]:
        """An event for each place that has changed."""
        if not self._moved.is_set():
            return []
        self._moved.clear()
        before, self._shown = self._shown, await self._places.of(self._user)
        return [self._event(uuid, place) for uuid, place in self._shown.items() if before.get(uuid) != place]

    def _event(self, uuid: str, place: Place) -> bytes:
        event = JobQueueEvent(job_uuid=uuid, queue=self._places.shown(place))
        return f"event: queue\ndata: {event.to_frame()}\n\n".encode()
