"""Which jobs this instance may offer to miners: those that its facilitator has given to it (extension ``claims``).

Validators with one key and separate databases get the same jobs. The facilitator's answer to ``received`` tells
whose a job is; until then it is offered to nobody.
"""

import asyncio
from collections.abc import Iterable

from compute_horde.protocol.extensions import Extension


class Claims:
    """Jobs whose ``received`` was not answered yet."""

    def __init__(self) -> None:
        self._needed = True  # until a facilitator has said that it does not know of claims
        self._open: dict[str, asyncio.Event] = {}

    def connected(self, extensions: Iterable[Extension]) -> None:
        """A facilitator has let us in. One that does not know of claims gives each job to whoever gets it."""
        self._needed = Extension.CLAIMS in extensions
        if not self._needed:
            for job_uuid in list(self._open):
                self.answered(job_uuid)

    def posted(self, job_uuid: str) -> None:
        """A status of the job is on its way."""
        if self._needed and job_uuid not in self._open:
            self._open[job_uuid] = asyncio.Event()

    def answered(self, job_uuid: str) -> None:
        """The facilitator has taken a status of the job."""
        if claim := self._open.pop(job_uuid, None):
            claim.set()

    def is_open(self, job_uuid: str) -> bool:
        return job_uuid in self._open

    async def confirmed(self, job_uuid: str) -> None:
        """Return when the job is ours."""
        if claim := self._open.get(job_uuid):
            await claim.wait()
