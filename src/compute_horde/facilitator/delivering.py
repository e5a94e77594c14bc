"""Jobs on their way to validators: each is given to one connection, whichever replica it is at."""

import contextlib
from collections.abc import Sequence

import structlog

from compute_horde.facilitator.handing import Handing, Unconfirmed
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.rows import NewJob
from compute_horde.facilitator.switchboard import Switchboard, replaces
from compute_horde.facilitator.topics import validator_topic
from compute_horde.facilitator.validators import Link, Links
from compute_horde.storage.bus import Bus
from compute_horde.storage.errors import StorageError

log = structlog.get_logger(__name__)


class Delivering:
    """The database says who has a job; what a connection was pushed is known to its replica."""

    def __init__(self, handing: Handing, links: Links, board: Switchboard, bus: Bus) -> None:
        self._handing, self._links, self._board, self._bus = handing, links, board, bus

    async def push(self, job: NewJob) -> None:
        """Give a job that was just stored to the connection that was noted, or leave it to others."""
        link = self._links.get(job.given_to)
        if link and self._links.give(link, job.uuid, job.frame):
            return
        if job.given_to:  # it was lost at this very moment
            with contextlib.suppress(StorageError):  # the link is gone, so others may take the job all the same
                await self._handing.take_back(job.uuid, job.given_to)
        self._bus.notify(validator_topic(job.validator))

    def wake(self, validator: str) -> None:
        """There may be something for this validator."""
        self._bus.notify(validator_topic(validator))

    async def hand_over(self, link: Link, *, is_new: bool) -> None:
        """Give a connection every job that its validator has not confirmed, unless another has it.

        A new connection gets those as well that went over the one before. Older connections of the validator to
        this replica get nothing any more (G16).
        """
        found = await self._handing.unconfirmed(link.hotkey)
        if not found or self._board.here(link.hotkey) is not link:
            return
        live = {one.id: one for one in await self._board.live(link.hotkey)}
        for job in _given_but_not_pushed(found, link):
            self._give(link, job.uuid, await self._handing.frame(job.uuid))
        wanted = [job for job in found if _is_free(job, live, link, is_new=is_new)]
        if wanted:
            await self._take(link, wanted)

    async def _take(self, link: Link, wanted: Sequence[Unconfirmed]) -> None:
        frames = await self._handing.claim(wanted, link.id)
        for job in wanted:  # in their order
            if job.uuid in frames:
                self._give(link, job.uuid, frames[job.uuid])

    def _give(self, link: Link, uuid: str, frame: str) -> None:
        if not self._links.give(link, uuid, frame):
            link.pushed.add(_too_large(uuid))
            log.warning("job exceeds this connection's frame limit", job_uuid=uuid, validator=link.hotkey)


def _given_but_not_pushed(found: Sequence[Unconfirmed], link: Link) -> list[Unconfirmed]:
    """What was stored by a transaction whose end this replica did not hear of."""
    seen = link.pushed
    mine = (job for job in found if job.given_to == link.id)
    return [job for job in mine if job.uuid not in seen and _too_large(job.uuid) not in seen]


def _too_large(uuid: str) -> str:
    return f"large:{uuid}"


def _is_free(job: Unconfirmed, live: dict[str, LiveLink], link: Link, *, is_new: bool) -> bool:
    if job.given_to == link.id:
        return False
    other = live.get(job.given_to or "")
    return other is None or (is_new and replaces(link, other))
