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
from compute_horde.transport.channel import Channel
from compute_horde.transport.memory import MemoryDialer
from compute_horde.transport.served import ServedChannel, serving
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.testing.scripted import ScriptedFacilitator, ScriptedMiner, job_request
from compute_horde.validator.testing.world import JOB, MINER, USER, VALIDATOR, WHOLE, whole_job

Accept = Callable[[str, Mapping[str, str], Channel], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(accept: Accept) -> AsyncIterator[int]:
    """A scripted peer behind a real port."""

    @websocket("/{rest:path}")
    async def handler(socket: "WebSocket[Any, Any, Any]") -> None:
        await socket.accept()
        channel = ServedChannel(socket)
        await accept(str(socket.url), dict(socket.headers), channel)
        await channel.close()

    async with serving(Litestar([handler], openapi_config=None)) as server:
        yield server.port


async def test_a_job_runs_over_real_sockets(tmp_path: Path) -> None:
    nowhere = MemoryDialer()
    facilitator = ScriptedFacilitator(nowhere, "ws://f/")
    miner = ScriptedMiner(nowhere, "ws://m/", whole_job)
    async with served(facilitator.accept) as facilitator_port, served(miner.accept) as miner_port:
        endpoint = MinerEndpoint(hotkey=MINER.ss58_address, address="127.0.0.1", port=miner_port)
        validator = ValidatorService(
            ValidatorSettings(
                facilitator_url=f"ws://127.0.0.1:{facilitator_port}/ws/v0/",
                database_url=f"sqlite+aiosqlite:///{tmp_path}/validator.db",
            ),
            VALIDATOR,
            FixedChain(Directory(miners=(endpoint,), signers=frozenset({USER.ss58_address}))),
        )
        await validator.start()
        try:
            await asyncio.wait_for(validator.connected.wait(), 5)
            await facilitator.push(job_request(JOB, USER))
            await facilitator.wait_for(JOB, "completed")
            await asyncio.sleep(0.05)
        finally:
            await validator.stop()
    assert not miner.errors
    assert facilitator.history(JOB) == WHOLE
    assert miner.urls[0].endswith(f"/v0.1/validator_interface/{VALIDATOR.ss58_address}")
