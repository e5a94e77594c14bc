"""The client against the stand-in for the existing facilitator, over a real socket."""

import asyncio
import time
from typing import Any

import pytest
from tests.contract.sdk.horde import order
from tests.contract.sdk.legacy import LegacyFacilitator
from tests.contract.sdk.serving import served

from compute_horde_sdk._internal.wire.session import Session
from compute_horde_sdk._internal.wiring import Wiring
from compute_horde_sdk.v1 import ComputeHordeClient, ComputeHordeError

DONE = {"miner_response": {"docker_process_stdout": "out", "docker_process_stderr": ""}}


async def test_a_job_from_creation_to_result() -> None:
    legacy = LegacyFacilitator()
    hotkey: Any = legacy.hotkey
    async with served(legacy) as url, ComputeHordeClient(hotkey, "validator", facilitator_url=url) as client:
        job = await client.create_job("always_on.test", "SN0", "alpine", ["echo"])
        waiting = asyncio.create_task(job.wait(timeout=20))
        await asyncio.sleep(0.05)
        legacy.advance(job.uuid, "accepted")
        legacy.advance(job.uuid, "completed", DONE, stdout="out")
        await waiting
        assert job.result is not None
        assert job.result.stdout == "out"
        assert [one.uuid for one in await client.get_jobs()] == [job.uuid]
        began = time.monotonic()
        other = await client.create_job("always_on.test", "SN0", "alpine")
        with pytest.raises(TimeoutError):
            await other.wait(timeout=0.2)
        assert time.monotonic() - began < 1


async def test_a_connection_that_is_cut_after_the_request() -> None:
    """A server that closes without an answer, once having created the job and once not."""
    legacy = LegacyFacilitator()

    async def cut(image: str, carry_out: bool) -> str:
        async with served(legacy) as url:
            proxy = await asyncio.start_server(lambda r, w: _cutting(r, w, url, carry_out), "127.0.0.1", 0)
            async with proxy:
                port = proxy.sockets[0].getsockname()[1]
                horde = Session(f"http://127.0.0.1:{port}", legacy.hotkey, Wiring())
                try:
                    return (await horde.create(order(image))).uuid
                finally:
                    await horde.aclose()

    assert await cut("a", True) in legacy.jobs
    with pytest.raises(ComputeHordeError) as caught:
        await cut("b", False)
    assert caught.value.code == "creation_unknown"
    assert len(legacy.jobs) == 1


async def _cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, carry_out: bool) -> None:
    """Pass one request on, whole; the answer to a creation is swallowed, and perhaps the request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
        creation = head.startswith(b"POST /api/v1/job-docker/")
        if creation and not carry_out:
            return
        host, port = url.removeprefix("http://").split(":")
        there, here = await asyncio.open_connection(host, int(port))
        here.write(head.replace(b"Connection: keep-alive", b"Connection: close") + body)
        answer = await there.read()
        here.close()
        if not creation:
            writer.write(answer)
            await writer.drain()
    finally:
        writer.close()


async def test_a_facilitator_that_restarts() -> None:
    """Nothing listens for a while; the creation waits for it."""
    legacy = LegacyFacilitator()
    async with served(legacy) as url:
        pass
    port = int(url.rpartition(":")[2])
    horde = Session(url, legacy.hotkey, Wiring())
    creating = asyncio.create_task(horde.create(order()))
    await asyncio.sleep(0.3)
    assert not creating.done()
    async with served(legacy, port):
        assert (await creating).uuid in legacy.jobs
    await horde.aclose()
