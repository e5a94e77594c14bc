"""Cancelling jobs: the wish is stored, passed on to the validator, and kept even where the validator is not."""

from collections.abc import Callable

from compute_horde.facilitator.ending import NEVER_SENT, NOT_STOPPED, Endings
from compute_horde.facilitator.errors import NO_JOB, ApiError
from compute_horde.facilitator.handing import Handing
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.rows import UnderWay
from compute_horde.facilitator.switchboard import Switchboard, choose, replaces
from compute_horde.facilitator.topics import validator_topic
from compute_horde.facilitator.validators import Link, Links
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import Extension
from compute_horde.storage.bus import Bus


class Cancelling:
    """``limit_s``: after so long the supervisor ends the job itself; ``on_deadline`` is told when that will be.

    ``now``: the wall clock; ``clock``: the steady one.
    """

    def __init__(
        self,
        handing: Handing,
        links: Links,
        board: Switchboard,
        endings: Endings,
        bus: Bus,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        limit_s: float,
        on_deadline: Callable[[float], None],
    ) -> None:
        self._handing, self._links, self._board = handing, links, board
        self._endings, self._bus, self._now, self._clock = endings, bus, now, clock
        self._limit, self._on_deadline = limit_s, on_deadline

    async def request(self, job_uuid: str, user: str) -> None:
        """Cancel one of the user's jobs. One that has ended is left as it is; asking again changes nothing.

        :raises ApiError: 404.
        """
        ends = self._clock() + self._limit
        job = await self._handing.request_cancel(job_uuid, user, ends)
        if job is None:
            raise ApiError(404, NO_JOB)
        if job.state.is_terminal:
            return
        self._on_deadline(ends)
        if job.state is JobState.SENT and job.given_to is None:
            await self._endings.cancel(job_uuid, NEVER_SENT)
            return
        match await self._board.find(job):
            case Link() as link:
                await self._tell(link, job)
            case LiveLink():
                self._bus.notify(validator_topic(job.validator))

    async def hand_over(self, link: Link, *, is_new: bool) -> None:
        """Tell a connection of every cancelled job under way that it has.

        A new one is told of those that went over the one before as well, and of those that were ended without it
        while it was away: their containers may still run.
        """
        if found := await self._handing.cancelling(link.hotkey):
            live = await self._board.live(link.hotkey)
            for job in found:
                chosen = choose(job, live)
                if chosen and (chosen.id == link.id or (is_new and replaces(link, chosen))):
                    await self._tell(link, job)
        if is_new and Extension.CANCEL in link.extensions:
            for job_uuid in await self._handing.perhaps_running(link.hotkey, self._now()):
                link.push(V0CancelJobRequest(job_uuid=job_uuid))

    async def _tell(self, link: Link, job: UnderWay) -> None:
        if Extension.CANCEL not in link.extensions:
            await self._endings.cancel(job.uuid, NOT_STOPPED)
            return
        if job.state is JobState.SENT:  # a request to cancel a job that the validator has not seen is ignored
            self._links.give(link, job.uuid, await self._handing.frame(job.uuid))
        link.push_cancel(job.uuid)
