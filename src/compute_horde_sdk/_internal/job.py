"""One job, as the facilitator last told of it."""

import asyncio
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeJobError,
    ComputeHordeJobTimeoutError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.models import (
    ComputeHordeJobResult,
    ComputeHordeJobStatusEntry,
)
from compute_horde_sdk._internal.port import JobSnapshot, StatusChange
from compute_horde_sdk._internal.waiting import follow

if TYPE_CHECKING:  # the client makes jobs, so at run time it is the one that imports
    from compute_horde_sdk._internal.client import ComputeHordeClient


class ComputeHordeJob:
    """A job and what is known of it. Made by the client's ``create_job``, ``get_job`` and ``iter_jobs``.

    * ``uuid``: the facilitator's name of the job
    * ``status``: where it is
    * ``result``: what it left; None while it is in progress, set in every final state
    * ``error``: why it failed; None while it is in progress, and when it completed
    * ``status_history``: oldest first
    """

    def __init__(self, client: "ComputeHordeClient", snapshot: JobSnapshot) -> None:
        self._client = client
        self._take(snapshot)

    async def wait(self, timeout: float | None = None) -> None:
        """Return when the job has ended, in whatever way. Changes are pushed, or polled where they cannot be.

        :param timeout: seconds; None waits as long as it takes.
        :raises ComputeHordeJobTimeoutError: time is up; the job goes on.
        :raises ComputeHordeError: the facilitator cannot be reached for long, or refuses.
        """
        _check_timeout(timeout)
        if not self.status.is_in_progress():
            return
        try:
            async with asyncio.timeout(timeout) as scope:
                await follow(self, self._client._horde, self._client._wiring)
        except TimeoutError:
            if not scope.expired():
                raise
            raise ComputeHordeJobTimeoutError(
                f"job {self.uuid} did not end within {timeout} s; it is {self.status.value}"
            ) from None

    async def refresh_from_facilitator(self) -> None:
        """Fetch the job and take over what the facilitator knows.

        :raises ComputeHordeNotFoundError: the facilitator no longer has it.
        :raises ComputeHordeError: the facilitator cannot be reached, or refuses.
        """
        self._take(await self._client._horde.fetch(self.uuid))

    def __repr__(self) -> str:
        failure = f", error={self.error.code!r}" if self.error else ""
        return f"ComputeHordeJob(uuid={self.uuid!r}, status={self.status.value!r}{failure})"

    def _take(self, snapshot: JobSnapshot) -> None:
        self._snapshot = snapshot
        self.uuid = snapshot.uuid
        self.status = snapshot.status
        self.status_history: list[ComputeHordeJobStatusEntry] = _merged([], snapshot.history)
        self.result: ComputeHordeJobResult | None = snapshot.result
        self.error: ComputeHordeJobError | None = snapshot.error

    def _take_change(self, change: StatusChange) -> bool:
        """Take over a pushed change; False when the job object has to be fetched to know the rest."""
        if not change.whole:
            return False
        known = len(self.status_history)
        self.status_history = _merged(self.status_history, [change.entry])
        if len(self.status_history) > known and self.status.is_in_progress():
            self.status, self.result, self.error = change.entry.status, change.result, change.error
        return True


def _merged(
    history: list[ComputeHordeJobStatusEntry], more: Iterable[ComputeHordeJobStatusEntry]
) -> list[ComputeHordeJobStatusEntry]:
    """Both, without repetitions, in the order in which they came."""
    merged = list(history)
    seen = {(entry.status, entry.created_at) for entry in history}
    for entry in more:
        if (entry.status, entry.created_at) not in seen:
            seen.add((entry.status, entry.created_at))
            merged.append(entry)
    return merged


def _check_timeout(timeout: object) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout) or timeout < 0:
        raise ComputeHordeValidationError("timeout must be seconds, 0 or more, or None", field="timeout")
