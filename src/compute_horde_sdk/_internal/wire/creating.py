"""A job is created once, and known to be, whatever becomes of the answer.

Where the facilitator announced ``repeatable-create`` the same signed bytes are sent until they are answered. The
existing network's would make a second job of them: there, once an answer is lost, the list of jobs tells.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import Job
from compute_horde_sdk._internal.exceptions import (
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeResponseError,
)
from compute_horde_sdk._internal.wire.answers import error_of, parse_answer
from compute_horde_sdk._internal.wire.http import AnswerLost, Facilitator, Request
from compute_horde_sdk._internal.wire.listing import read_all
from compute_horde_sdk._internal.wire.matching import Sent
from compute_horde_sdk._internal.wiring import Wiring

CREATE_PATH = "/api/v1/job-docker/"
LOOKS_FOR_LOST = 3
"""A creation may still be under way when its answer is lost, so that the list shows it a little later."""

MAX_SENDINGS = 4
"""Through a proxy that says each time that it lost the facilitator, and a list that says: no such job."""

CLAIMS_KEPT_S = 600.0


class Creator:
    """Sends creations, and finds what became of those whose answer was lost.

    Equal orders at the same time are equal jobs. A found one belongs to the lost creations once every other
    creation that was under way when it was found is answered, and no more are found than are missing.
    """

    def __init__(self, facilitator: Facilitator, wiring: Wiring) -> None:
        self._facilitator = facilitator
        self._wiring = wiring
        self._claimed: dict[str, float] = {}
        self._missing: Counter[bytes] = Counter()
        self._under_way: dict[asyncio.Event, bytes] = {}

    async def create(self, body: Mapping[str, Any], content: bytes, headers: Mapping[str, str]) -> Job:
        """:raises ComputeHordeError: it was not created; or ``creation_unknown``: nobody can tell."""
        repeatable = Extension.REPEATABLE_CREATE in await self._facilitator.extensions()
        request = Request("POST", CREATE_PATH, content=content, headers=headers, repeatable=repeatable)
        sent = Sent(body, content, self._facilitator.clock.not_before())
        for sending in range(1, MAX_SENDINGS + 1):
            try:
                return await self._exchange(request)
            except AnswerLost as lost:
                if repeatable:
                    raise _unknown(lost.error) from lost.error.__cause__
                if job := await self._find(sent):
                    return job
                if sending == MAX_SENDINGS or not _proxy_lost_it(lost.error):
                    raise _unknown(lost.error) from lost.error.__cause__
        raise AssertionError("unreachable")  # pragma: no cover - the last sending returns or raises

    async def _exchange(self, request: Request) -> Job:
        over = asyncio.Event()
        self._under_way[over] = request.content or b""
        try:
            answer = await self._facilitator.exchange(request)
            if not answer.response.is_success:
                raise error_of(answer.response)
            return self._claim(parse_answer(Job, answer.response))
        finally:
            del self._under_way[over]
            over.set()

    async def _find(self, sent: Sent) -> Job | None:
        """The job that a lost creation made; None when it made none as far as the list tells.

        :raises ComputeHordeConnectionError: the list cannot be had, or tells of too many.
        """
        self._missing[sent.content] += 1
        fitting: list[Job] = []
        try:
            for attempt in range(1, LOOKS_FOR_LOST + 1):
                await self._wiring.sleep(self._wiring.backoff(attempt))
                fitting = await self._fitting(sent)
                if fitting and len(fitting) <= self._missing[sent.content]:
                    return self._claim(fitting[0])
        except ComputeHordeError as error:
            raise _unknown(error) from error.__cause__
        finally:
            self._missing[sent.content] -= 1
            self._missing += Counter()  # drops the zeros
        if fitting:
            raise _unknown(ComputeHordeConnectionError(f"{len(fitting)} jobs fit the one whose answer was lost"))
        return None

    async def _fitting(self, sent: Sent) -> list[Job]:
        found = [job async for job in read_all(self._facilitator, sent.queue) if sent.fits(job)]
        for over in [over for over, content in self._under_way.items() if content == sent.content]:
            await over.wait()
        return [job for job in found if job.uuid not in self._claimed]

    def _claim(self, job: Job) -> Job:
        now = self._wiring.clock()
        while self._claimed and now - next(iter(self._claimed.values())) > CLAIMS_KEPT_S:
            del self._claimed[next(iter(self._claimed))]
        self._claimed[job.uuid] = now
        return job


def _proxy_lost_it(error: ComputeHordeError) -> bool:
    """Whether a proxy lost the facilitator, which has answered since: it is not busy with the request any more."""
    return isinstance(error, ComputeHordeResponseError) and error.status_code == 502


def _unknown(error: ComputeHordeError) -> ComputeHordeError:
    return ComputeHordeConnectionError(
        f"the job may have been created, but the answer was lost: {error.message}",
        code="creation_unknown",
        retryable=False,
        hint="Look at iter_jobs() before sending it again.",
    )
