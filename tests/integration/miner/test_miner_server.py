"""The miner on a real port: uvicorn on one side, the websockets client and httpx on the other."""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.miner.launcher import FakeLauncher
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.testing import (
    ALICE,
    MINER,
    QUIET_EXTENSIONS,
    TEST,
    Peer,
    finished_receipt,
    initial,
    request,
    until,
)
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.protocol.control import LogPiece, V0CancelJobRequest, V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.extensions import LINK_EXTENSIONS, announced, announcement
from compute_horde.protocol.miner_executor import EXECUTOR_PATH
from compute_horde.protocol.receipts import page_at, parse_line
from compute_horde.protocol.validator_miner import (
    VALIDATOR_PATH,
    V0ExecutorReadyRequest,
    V0JobFinishedRequest,
    ValidatorAuthForMiner,
)
from compute_horde.transport.channel import ChannelClosed
from compute_horde.transport.websocket import WebSocketDialer


def make(folder: Path, **changes: Any) -> tuple[MinerService, FakeLauncher]:
    settings = MinerSettings(
        port=0, database_url=f"sqlite+aiosqlite:///{folder / 'm.db'}", executors={TEST: 1}, warm=1, **changes
    )
    launcher = FakeLauncher()
    chain = FixedChain(Directory(validators=frozenset({ALICE.ss58_address})))
    return MinerService(settings, chain, launcher, hotkey=MINER), launcher


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[MinerService, FakeLauncher]]:
    miner, launcher = make(folder)
    await miner.start()
    try:
        yield miner, launcher
    finally:
        await miner.stop()


async def dial(url: str) -> Peer:
    dialer = WebSocketDialer()
    headers = announcement(QUIET_EXTENSIONS)
    return Peer(await dialer.dial(url, headers=headers, max_frame_bytes=MAX_MINER_FRAME_BYTES))


async def enter(miner: MinerService) -> Peer:
    validator = await dial(miner.url + VALIDATOR_PATH + ALICE.ss58_address)
    await validator.say(ValidatorAuthForMiner.make(ALICE, MINER.ss58_address, int(time.time())))
    manifest = await validator.expect("V0ExecutorManifestRequest")
    assert manifest["manifest"] == {TEST.value: 1}
    return validator


async def test_a_job_over_real_sockets_and_its_receipts_over_http(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, launcher):
        assert launcher.warmed == {TEST: 1}
        job = str(uuid.uuid4())
        began = time.time()
        validator = await enter(miner)
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await until(lambda: bool(launcher.launched))
        assert launcher.launched[0].miner_url == miner.url
        executor = await dial(miner.url + EXECUTOR_PATH + launcher.launched[0].token)
        for peer in (validator, executor):
            assert announced(peer.channel.peer_headers) == LINK_EXTENSIONS
        await executor.expect("V0InitialJobRequest")
        await executor.say(V0ExecutorReadyRequest(job_uuid=job))
        await validator.expect("V0ExecutorReadyRequest")
        await validator.say(request(job))
        await executor.expect("V0JobRequest")
        await executor.say(V0JobFinishedRequest(job_uuid=job, docker_process_stdout="", docker_process_stderr=""))
        await validator.expect("V0JobFinishedRequest")
        await validator.say(finished_receipt(job), "PING", "{")
        await validator.expect("GenericError")
        await check_pages(miner, job, page_at(began))
        await executor.channel.close()
        await validator.channel.close()


async def test_output_and_a_cancel_over_real_sockets(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, launcher):
        job = str(uuid.uuid4())
        validator = await enter(miner)
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await until(lambda: bool(launcher.launched))
        executor = await dial(miner.url + EXECUTOR_PATH + launcher.launched[0].token)
        await executor.expect("V0InitialJobRequest")
        await validator.say(V0JobLogsRequest(job_uuid=job, request_id="a", position=0))
        await executor.expect("V0JobLogsRequest")
        pieces = [LogPiece(stream="stderr", offset=0, text="hé\n")]
        answer = V0JobLogsResponse(job_uuid=job, request_id="a", state="more", position=3, pieces=pieces)
        await executor.say(answer)
        assert await validator.expect("V0JobLogsResponse") == answer.model_dump(mode="json")
        await validator.say(V0CancelJobRequest(job_uuid=job))
        await executor.expect("V0CancelJobRequest")
        await executor.channel.close()
        await miner.stop(end_jobs=True)
        assert (await validator.expect("V0JobFailedRequest"))["context"]["problem"]["code"] == "cancelled"
        await validator.channel.close()


async def check_pages(miner: MinerService, job: str, page: int) -> None:
    async with httpx.AsyncClient(base_url=miner.url.replace("ws", "http", 1), trust_env=False) as http:
        first = await http.get(f"/receipts/{page}.jsonl", headers={"Accept-Encoding": "gzip"})
        assert first.status_code == 200
        assert first.headers["content-encoding"] == "gzip"
        kinds = [parse_line(line).payload.receipt_type for line in first.text.splitlines()]
        assert kinds == ["JobStartedReceipt", "JobFinishedReceipt"]
        size = len(first.content)
        part = await http.get(
            f"/receipts/{page}.jsonl", headers={"Accept-Encoding": "", "Range": f"bytes={size - 9}-"}
        )
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {size - 9}-{size - 1}/{size}"
        assert part.content == first.content[-9:]
        past = await http.get(f"/receipts/{page}.jsonl", headers={"Range": f"bytes={size}-"})
        assert past.status_code == 416
        assert (await http.get("/receipts/1.jsonl")).status_code == 404
        assert set((await http.get("/version")).json()) == {"miner_version", "runner_version"}
        assert (await http.get("/health/live")).status_code == 200
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_frame_over_the_limit_closes_only_its_own_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, _):
        greedy, modest = await enter(miner), await enter(miner)
        with contextlib.suppress(ChannelClosed):
            await greedy.channel.send("x" * (MAX_MINER_FRAME_BYTES + 1))
        assert await greedy.hangup() == 1009
        await modest.say('{"message_type": "V0MainHotkeyMessage"}')
        await modest.expect("V0MainHotkeyMessage")


async def test_an_unknown_validator_is_told_and_turned_away(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, _):
        stranger = await dial(miner.url + VALIDATOR_PATH + MINER.ss58_address)
        refusal = await stranger.expect("UnauthorizedError")
        assert refusal["code"] == "UNKNOWN_VALIDATOR"
        error = await stranger.expect("GenericError")
        assert error["details"] == f"Unknown validator: {MINER.ss58_address}"
        assert await stranger.hangup() == 1000


async def test_stop_with_a_validator_connected_does_not_wait_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, launcher):
        validator = await enter(miner)
        await validator.say(initial(str(uuid.uuid4())))
        await validator.expect("V0AcceptJobRequest")
        began = time.monotonic()
        await miner.stop()
        assert time.monotonic() - began < 3
        assert launcher.closed
        assert not launcher.launched[0].ended
        assert await validator.hangup() == 1001


async def test_the_hot_path_costs_the_miner_little(tmp_path: Path) -> None:
    async with running(tmp_path) as (miner, launcher):
        validator = await enter(miner)
        best = min([await timed_job(miner, launcher, validator) for _ in range(5)])
        assert best < 0.5, best  # far above what it takes, so that a busy machine does not fail it


async def timed_job(miner: MinerService, launcher: FakeLauncher, validator: Peer) -> float:
    job = str(uuid.uuid4())
    began = time.monotonic()
    seen = len(launcher.launched)
    await validator.say(initial(job))
    await validator.expect("V0AcceptJobRequest")
    await until(lambda: len(launcher.launched) > seen)
    executor = await dial(miner.url + EXECUTOR_PATH + launcher.launched[-1].token)
    await executor.expect("V0InitialJobRequest")
    await executor.say(V0ExecutorReadyRequest(job_uuid=job))
    await validator.expect("V0ExecutorReadyRequest")
    await validator.say(request(job))
    await executor.expect("V0JobRequest")
    await executor.say(V0JobFinishedRequest(job_uuid=job, docker_process_stdout="", docker_process_stderr=""))
    await validator.expect("V0JobFinishedRequest")
    took = time.monotonic() - began
    await validator.say(finished_receipt(job))
    await executor.channel.close()
    launcher.launched[-1].end()
    await until(lambda: miner.pool.free(TEST) == 1)
    return took
