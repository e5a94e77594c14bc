"""What a miner is told when an attempt is over: to stop, where it may still be at it, and the last receipt."""

import contextlib
import time
from dataclasses import dataclass

from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.receipts import JobFinishedPayload
from compute_horde.protocol.validator_miner import V0JobFinishedReceiptRequest
from compute_horde.transport.channel import ChannelClosed, DialFailed
from compute_horde.validator import requests
from compute_horde.validator.disk import Disk
from compute_horde.validator.miner_link import MinerLink
from compute_horde.validator.outcomes import Outcome
from compute_horde.validator.receipts import ReceiptBook
from compute_horde.validator.rows import IssuedReceipt, Job
from compute_horde.validator.tools import Tools


def book_of(job: Job, link: MinerLink, tools: Tools) -> ReceiptBook:
    """The receipts of an attempt."""
    limits = requests.limits_of(job.request, tools.settings)
    return ReceiptBook(tools.signer, job.name, link.miner.hotkey, job.request.executor_class, limits)


@dataclass(frozen=True)
class Parting:
    """``receipt``: None where the miner was asked nothing. ``stop``: the name of an attempt that may still run."""

    link: MinerLink
    disk: Disk
    connect_limit_s: float
    payload: JobFinishedPayload | None = None
    receipt: IssuedReceipt | None = None
    stop: str | None = None

    @classmethod
    def of(
        cls, job: Job, link: MinerLink, tools: Tools, outcome: Outcome, *, asked: bool, over: bool
    ) -> "Parting":
        """After this outcome. The receipt is to be kept before :meth:`say` sends it.

        ``asked``: the miner was asked for an executor; ``over``: it has said itself how the attempt ended.
        """
        limit = tools.settings.miner_connect_limit
        if not asked:
            return cls(link, tools.disk, limit)
        book = book_of(job, link, tools)
        paid = outcome.state is JobState.COMPLETED and link.miner.hotkey != TRUSTED_MINER_HOTKEY
        now = time.time()
        payload = book.finished(now, job.started_at or now, paid=paid)
        at_work = not over and outcome.state is JobState.HORDE_FAILED
        stop = job.name if at_work else None
        return cls(link, tools.disk, limit, payload, book.issue(payload), stop)

    async def say(self) -> None:
        """Tell the miner, for which one more connection is made, and close the link.

        It forgets the result then: how the attempt ended is on the disk before.
        """
        messages = self._messages()
        try:
            if messages:
                await self.disk.settled()
            with contextlib.suppress(ChannelClosed, DialFailed):
                if messages and not await self._sent(messages):
                    await self.link.open(self.connect_limit_s)
                    await self._sent(self._messages())
        finally:
            await self.link.close()

    def _messages(self) -> list[Message]:
        if self.payload is None or self.receipt is None:
            return []
        last = V0JobFinishedReceiptRequest(payload=self.payload, signature=self.receipt.signature)
        knows = Extension.CANCEL in (self.link.extensions or ())
        return [V0CancelJobRequest(job_uuid=self.stop), last] if self.stop and knows else [last]

    async def _sent(self, messages: list[Message]) -> bool:
        try:
            for message in messages:
                await self.link.send(message)
        except ChannelClosed:
            return False
        return True
