"""A miner with few executors, for tests of waiting."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import Message, parse_frame
from compute_horde.protocol.control import V0CancelJobRequest
from compute_horde.protocol.enums import ExecutorClass, Fault, RejectionReason
from compute_horde.protocol.problems import NOT_STORED, Problem
from compute_horde.transport.channel import ChannelClosed
from compute_horde.validator.testing.scripted import MinerConnection


class CrowdedMiner:
    """Plays :meth:`script`. A job runs until :meth:`finish`; one more than ``free`` is declined as busy.

    ``asked``: the attempts that it was offered, in order; ``tells``: whether it pushes how many are free;
    ``full``: its database takes no job.
    """

    def __init__(self, free: int, *, total: int = 2, tells: bool = True) -> None:
        self.free, self.total, self.tells, self.full = free, total, tells, False
        self.asked: list[str] = []
        self.began: list[str] = []
        self.connections: list[MinerConnection] = []
        self._done: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._changed = asyncio.Condition()

    def finish(self, *names: str) -> None:
        for name in names:
            self._done[name].set()

    async def set_free(self, count: int) -> None:
        """Executors come free, or are taken by another validator."""
        self.free = count
        await self._tell(self.connections)

    async def until_asked(self, count: int) -> None:
        """Wait until it was offered so many jobs."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self.asked) >= count)

    async def script(self, miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest(self.total)
        self.connections.append(miner)
        await self._tell([miner])
        try:
            while True:
                await self._take(miner, parse_frame(vm.VALIDATOR_TO_MINER, await miner.channel.receive()))
        finally:
            self.connections.remove(miner)

    async def _take(self, miner: MinerConnection, message: Message) -> None:
        miner.seen.append(message)
        match message:
            case vm.V0InitialJobRequest():
                await self._offered(miner, message.job_uuid)
            case vm.V0JobRequest():
                await self._done[message.job_uuid].wait()
                await self.set_free(self.free + 1)
                result = vm.V0JobFinishedRequest(
                    job_uuid=message.job_uuid, docker_process_stdout="", docker_process_stderr=""
                )
                await miner.send(result)
            case V0CancelJobRequest():
                await miner.channel.close()

    async def _offered(self, miner: MinerConnection, job: str) -> None:
        async with self._changed:
            self.asked.append(job)
            self._changed.notify_all()
        if self.full:
            no = Problem(code=NOT_STORED, message="No room", fault=Fault.MINER, retryable=True)
            await miner.send(vm.V0DeclineJobRequest(job_uuid=job, message=no.message, context=no.to_context()))
            return
        if self.free <= 0:
            await miner.send(
                vm.V0DeclineJobRequest(job_uuid=job, reason=RejectionReason.BUSY, message="All are busy")
            )
            return
        self.began.append(job)
        await self.set_free(self.free - 1)
        await miner.send(vm.V0AcceptJobRequest(job_uuid=job), vm.V0ExecutorReadyRequest(job_uuid=job))

    async def _tell(self, connections: Iterable[MinerConnection]) -> None:
        news = vm.V0FreeExecutorsRequest(free={ExecutorClass.always_on__test: max(0, self.free)})
        for connection in list(connections) if self.tells else ():
            try:
                await connection.send(news)
            except ChannelClosed:
                continue
