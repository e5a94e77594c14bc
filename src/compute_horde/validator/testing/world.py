"""Everything around a validator, in memory, and the scripts that most tests of it need."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import FixedChain
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension
from compute_horde.protocol.facilitator_validator import V0JobStatusUpdate
from compute_horde.storage.database import Database
from compute_horde.transport.memory import MemoryDialer
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Store
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    Script,
    ScriptedFacilitator,
    ScriptedMiner,
    job_request,
    no_pauses,
    running,
)

JOB = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
USER, MINER, VALIDATOR, STRANGER = (throwaway_hotkey(f"//{n}") for n in ("Alice", "Bob", "Charlie", "Eve"))
WHOLE = ["received", "accepted", "executor_ready", "volumes_ready", "execution_done", "completed"]
SHORT = {
    "leeway": 0.3,
    "reservation_limit": 0.3,
    "executor_startup_limit": -2.7,  # the test class grants 3 s by itself
    "miner_connect_limit": 2,
}


async def at_once() -> None:
    """A disk that is never waited for."""


@dataclass
class World:
    """A facilitator, miners by host name, and validators that share one database file.

    ``settled``: the way to the disk. The real one takes as long as it likes, which tests do not wait for.
    """

    folder: Path
    dialer: MemoryDialer = field(default_factory=MemoryDialer)
    chain: FixedChain = field(
        default_factory=lambda: FixedChain(Directory(signers=frozenset({USER.ss58_address})))
    )
    limits: dict[str, Any] = field(default_factory=lambda: {"miner_connect_limit": 2})
    settled: Callable[[], Awaitable[None]] = at_once

    def __post_init__(self) -> None:
        self.facilitator = ScriptedFacilitator(self.dialer, "ws://facilitator/")
        self.miners: list[ScriptedMiner] = []
        self.url = f"sqlite+aiosqlite:///{self.folder}/validator.db"

    def miner(
        self,
        *scripts: Script,
        host: str = "miner",
        hotkey: str = MINER.ss58_address,
        extensions: Iterable[Extension] = LINK_EXTENSIONS,
    ) -> ScriptedMiner:
        """A miner that is on the chain, unless it is the trusted one."""
        if hotkey != TRUSTED_MINER_HOTKEY:
            known = (*self.chain.current.miners, MinerEndpoint(hotkey=hotkey, address=host, port=8000))
            self.chain.current = self.chain.current.model_copy(update={"miners": known})
        self.miners.append(ScriptedMiner(self.dialer, f"ws://{host}:8000/", *scripts, extensions=extensions))
        return self.miners[-1]

    def validator(self, **changes: Any) -> ValidatorService:
        settings = ValidatorSettings(facilitator_url="ws://facilitator/", database_url=self.url)
        settings = settings.model_copy(update=self.limits | changes)  # past validation: limits may be tiny
        return ValidatorService(
            settings, VALIDATOR, self.chain, dialer=self.dialer, pauses=no_pauses, settled=self.settled
        )

    async def run(self, *, status: str, **changes: Any) -> V0JobStatusUpdate:
        """One job, to this status."""
        validator = self.validator()
        async with running(validator):
            await validator.connected.wait()
            await self.facilitator.push(job_request(JOB, USER, **changes))
            update = await self.facilitator.wait_for(JOB, status)
            for miner in self.miners:
                await asyncio.wait_for(miner.idle.wait(), 5)
        return update

    async def incidents(self) -> list[tuple[str, str]]:
        database = Database(self.url)
        try:
            return [(i.miner_hotkey, i.code) for i in await Store(database).incidents_since(0)]
        finally:
            await database.close()

    async def receipts(self, uuid: str = JOB) -> list[str]:
        database = Database(self.url)
        try:
            return sorted(receipt.kind for receipt in await Store(database).receipts_of(uuid))
        finally:
            await database.close()


async def accept(miner: MinerConnection) -> str:
    await miner.expect(vm.ValidatorAuthForMiner)
    await miner.manifest()
    job = str((await miner.expect(vm.V0InitialJobRequest)).job_uuid)
    await miner.send(vm.V0AcceptJobRequest(job_uuid=job))
    await miner.expect(vm.V0JobAcceptedReceiptRequest)
    return job


async def make_ready(miner: MinerConnection) -> str:
    job = await accept(miner)
    await miner.send(vm.V0ExecutorReadyRequest(job_uuid=job))
    await miner.expect(vm.V0JobRequest)
    return job


def result(job: str) -> vm.V0JobFinishedRequest:
    return vm.V0JobFinishedRequest(
        job_uuid=job,
        docker_process_stdout="hi\n",
        docker_process_stderr="",
        artifacts={"/artifacts/a": "YQ=="},
        upload_results={},
        exit_status=0,
    )


async def finish(miner: MinerConnection, job: str) -> None:
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), result(job))
    await miner.expect(vm.V0JobFinishedReceiptRequest)


async def whole_job(miner: MinerConnection) -> None:
    await finish(miner, await make_ready(miner))


async def silence(_miner: MinerConnection) -> None:
    await asyncio.sleep(0)


def ending(message: Message, after: Callable[[MinerConnection], Any] = make_ready) -> Script:
    """A script whose job ends with this message."""

    async def script(miner: MinerConnection) -> None:
        await after(miner)
        await miner.send(message)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    return script


async def never_accepts(miner: MinerConnection) -> None:
    await miner.expect(vm.ValidatorAuthForMiner)
    await miner.manifest()
    await miner.expect(vm.V0InitialJobRequest)


async def never_has_volumes(miner: MinerConnection) -> None:
    await make_ready(miner)


async def never_executes(miner: MinerConnection) -> None:
    job = await make_ready(miner)
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))


async def never_answers(miner: MinerConnection) -> None:
    job = await make_ready(miner)
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job))
