"""``python -m benchmarks.waiting``: thousands of jobs waited for by one client, over real sockets.

The facilitator is a small one in a process of its own, so that the memory measured is the client's.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from compute_horde_sdk._internal.job import ComputeHordeJob
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.wire.fake import FakeFacilitator, FakeHotkey
from compute_horde_sdk.v1 import ComputeHordeClient

PROMISED_MIB = 100
DONE: dict[str, Any] = {
    "miner_response": {
        "docker_process_stdout": "out",
        "docker_process_stderr": "",
        "artifacts": {},
        "upload_results": {},
    }
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--at-once", type=int, default=100, help="creations under way at a time")
    given = options.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        asyncio.run(_wait_for(given.jobs, given.at_once, here.recv()))
    finally:
        process.kill()  # it would wait for its stream to end
        process.join()


async def _wait_for(count: int, at_once: int, url: str) -> None:
    hotkey: Any = FakeHotkey()
    async with (
        ComputeHordeClient(hotkey, "validator", facilitator_url=url) as client,
        httpx.AsyncClient(base_url=url, timeout=120) as control,
    ):
        await client.authenticate()
        before, began = _resident_mib(), time.perf_counter()
        jobs: list[ComputeHordeJob] = []
        while len(jobs) < count:
            jobs += await asyncio.gather(*(_create(client) for _ in range(min(at_once, count - len(jobs)))))
        created, made_s = _resident_mib(), time.perf_counter() - began
        waits = asyncio.gather(*(job.wait() for job in jobs))
        while (await control.get("/figures")).json()["streams"] == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        waiting, figures = _resident_mib(), (await control.get("/figures")).json()
        began = time.perf_counter()
        await control.post("/finish")
        await waits
        finished_s = time.perf_counter() - began
        after = (await control.get("/figures")).json()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} jobs created in {made_s:.1f} s, all waited for, and finished in {finished_s:.1f} s")
    print(
        f"  memory in MiB: {before:.0f} logged in, {created:.0f} with jobs, {waiting:.0f} waiting, {peak:.0f} peak"
    )
    print(f"  growth at the peak: {peak - before:.0f} MiB (at most {PROMISED_MIB} promised for 10,000)")
    print(
        f"  streams open: {figures['streams']}, opened in all: {after['opened']}; looks: {after['looks']} requests"
    )
    print(f"  completed: {sum(job.status.is_successful() for job in jobs)}")


async def _create(client: ComputeHordeClient) -> ComputeHordeJob:
    spec = ComputeHordeJobSpec("always_on.test", "SN0", "alpine", args=["sh", "-c", "echo out"])
    return ComputeHordeJob(client, await client._horde.create(Order(spec, "validator")))


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def _serve(told: Connection) -> None:
    fake = FakeFacilitator()
    config = uvicorn.Config(_application(fake), port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells in no other way
            await asyncio.sleep(0.01)
        told.send(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        await serving

    asyncio.run(serve())


def _application(fake: FakeFacilitator) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] in ("/figures", "/finish"):
            response = _control(fake, scope["path"])
        else:
            url = f"http://horde.test{scope['path']}?{scope['query_string'].decode()}"
            response = await fake.handle(
                httpx.Request(scope["method"], url, headers=scope["headers"], content=body)
            )
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        stream: Any = response.stream
        async for chunk in stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return application


def _control(fake: FakeFacilitator, path: str) -> httpx.Response:
    if path == "/finish":
        for job_uuid in list(fake.jobs):
            fake.advance(job_uuid, "completed", DONE)
    looks = [one for one in fake.requests if one.method == "GET" and one.url.path.startswith("/api/v1/jobs/")]
    opened = len(fake.sent("GET", "/api/v1/events/"))
    figures = {"streams": fake.open_streams, "opened": opened, "looks": len(looks)}
    return httpx.Response(200, content=json.dumps(figures).encode(), headers={"Content-Type": "application/json"})


if __name__ == "__main__":
    main()
