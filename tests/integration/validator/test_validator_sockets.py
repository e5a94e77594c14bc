"""A whole job over real sockets: the validator's dialer against a served facilitator and miner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from litestar import Litestar, WebSocket
from litestar.handlers import websocket

from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import FixedChain
from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.compat.cancelled import without_disguise
from compute_horde.protocol.control import V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.enums import JobStatus, Participant
from compute_horde.protocol.extensions import announcement
from compute_horde.transport.channel import Channel
from compute_horde.transport.memory import MemoryDialer
from compute_horde.transport.served import ServedChannel, serving
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.testing.scripted import (
    MinerConnection,
    Script,
    ScriptedFacilitator,
    ScriptedMiner,
    job_request,
)
from compute_horde.validator.testing.world import JOB, MINER, USER, VALIDATOR, WHOLE, make_ready, whole_job

Accept = Callable[[str, Mapping[str, str], Channel], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(accept: Accept) -> AsyncIterator[int]:
    """A scripted peer behind a real port."""

    @websocket("/{rest:path}")
    async def handler(socket: "WebSocket[Any, Any, Any]") -> None:
        await socket.accept(headers=announcement())
        channel = ServedChannel(socket)
        await accept(str(socket.url), dict(socket.headers), channel)
        await channel.close()

    async with serving(Litestar([handler], openapi_config=None)) as server:
        yield server.port


@contextlib.asynccontextmanager
async def horde(folder: Path, script: Script) -> AsyncIterator[tuple[ScriptedFacilitator, ScriptedMiner]]:
    """A connected validator between scripted peers, all behind real ports."""
    nowhere = MemoryDialer()
    facilitator = ScriptedFacilitator(nowhere, "ws://f/")
    miner = ScriptedMiner(nowhere, "ws://m/", script)
    async with served(facilitator.accept) as facilitator_port, served(miner.accept) as miner_port:
        endpoint = MinerEndpoint(hotkey=MINER.ss58_address, address="127.0.0.1", port=miner_port)
        validator = ValidatorService(
            ValidatorSettings(
                facilitator_url=f"ws://127.0.0.1:{facilitator_port}/ws/v0/",
                database_url=f"sqlite+aiosqlite:///{folder}/validator.db",
            ),
            VALIDATOR,
            FixedChain(Directory(miners=(endpoint,), signers=frozenset({USER.ss58_address}))),
        )
        await validator.start()
        try:
            await asyncio.wait_for(validator.connected.wait(), 5)
            yield facilitator, miner
            await asyncio.wait_for(miner.idle.wait(), 5)
        finally:
            await validator.stop()
    assert not miner.errors


async def test_a_job_runs_over_real_sockets(tmp_path: Path) -> None:
    async with horde(tmp_path, whole_job) as (facilitator, miner):
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "completed")
    assert facilitator.history(JOB) == WHOLE
    assert miner.urls[0].endswith(f"/v0.1/validator_interface/{VALIDATOR.ss58_address}")


async def test_output_is_read_and_the_job_cancelled_over_real_sockets(tmp_path: Path) -> None:
    answer = V0JobLogsResponse(job_uuid=JOB, request_id="a", state="more", position=3)
    stopped = to_wire(problem("cancelled", "stopped"), JOB, reported_by=Participant.EXECUTOR, stdout="x")

    async def script(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.expect(V0JobLogsRequest)
        await miner.send(answer)
        await miner.expect(V0CancelJobRequest)
        await miner.send(stopped)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    async with horde(tmp_path, script) as (facilitator, _):
        await facilitator.push(job_request(JOB, USER, download_time_limit=30))
        await facilitator.wait_for(JOB, "executor_ready")
        await facilitator.push(V0JobLogsRequest(job_uuid=JOB, request_id="a", position=0))
        await facilitator.until(lambda: facilitator.logs == [answer])
        await facilitator.push(V0CancelJobRequest(job_uuid=JOB))
        update = await facilitator.wait_for(JOB, "failed")
    assert without_disguise(update.status, update.metadata) is JobStatus.CANCELLED
