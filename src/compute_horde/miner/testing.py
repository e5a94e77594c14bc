"""A miner for tests, without sockets: memory channels, a fake launcher, a database in a temporary folder."""

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from compute_horde.chain.keys import throwaway_hotkey, verify
from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.miner.launcher import FakeExecutor, FakeLauncher
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.timers import Timers
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.enums import DockerPreset, ExecutorClass
from compute_horde.protocol.extensions import LINK_EXTENSIONS, Extension, announcement
from compute_horde.protocol.receipts import JobAcceptedPayload, JobFinishedPayload, JobStartedPayload
from compute_horde.protocol.validator_miner import (
    ExecutorTiming,
    V0ExecutorReadyRequest,
    V0InitialJobRequest,
    V0JobAcceptedReceiptRequest,
    V0JobFinishedReceiptRequest,
    V0JobFinishedRequest,
    V0JobRequest,
    ValidatorAuthForMiner,
    signed_request,
)
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.transport.channel import Channel, ChannelClosed
from compute_horde.transport.memory import memory_pair

MINER = throwaway_hotkey("//Miner")
ALICE = throwaway_hotkey("//Alice")
BOB = throwaway_hotkey("//Bob")
TEST = ExecutorClass.always_on__test
LLM = ExecutorClass.always_on__llm__a6000
PATIENCE = 5.0
QUIET_EXTENSIONS = LINK_EXTENSIONS - {Extension.CAPACITY}
"""What the validators of tests announce, unless they want to hear how many executors are free."""


class Peer:
    """The far end of a channel, with short words for tests."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def say(self, *messages: Message | str) -> None:
        for message in messages:
            await self.channel.send(message if isinstance(message, str) else message.to_frame())

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            answer: dict[str, Any] = json.loads(await self.channel.receive())
        return answer

    async def expect(self, *types: str) -> dict[str, Any]:
        """The next frames have these types; the last of them."""
        last: dict[str, Any] = {}
        for name in types:
            last = await self.hear()
            if last["message_type"] != name:
                raise AssertionError(f"expected {name}, got {last}")
        return last

    async def silence(self) -> None:
        """Nothing more comes for a moment."""
        try:
            async with asyncio.timeout(0.05):
                frame = await self.channel.receive()
        except TimeoutError:
            return
        raise AssertionError(f"unexpected frame {frame[:300]}")

    async def hangup(self) -> int:
        """The other side closes now; with which code."""
        try:
            async with asyncio.timeout(PATIENCE):
                frame = await self.channel.receive()
        except ChannelClosed as closed:
            return closed.code
        raise AssertionError(f"unexpected frame {frame[:300]}")


class FakeClock:
    """A clock that counts suspension, and goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def timers(self) -> Timers:
        """Timers that look at it all the time."""
        return Timers(self, recheck_s=0.001)


class Stuck:
    """A channel that takes frames only while ``go`` is set."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self.go = channel, asyncio.Event()

    @property
    def peer(self) -> str:
        return self._channel.peer

    @property
    def peer_headers(self) -> Mapping[str, str]:
        return self._channel.peer_headers

    async def send(self, frame: str) -> None:
        await self.go.wait()
        await self._channel.send(frame)

    async def receive(self) -> str:
        return await self._channel.receive()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._channel.close(code, reason)


def started(job_uuid: str, key: Any = ALICE, miner: str = MINER.ss58_address, **changes: Any) -> JobStartedPayload:
    values: dict[str, Any] = {
        "job_uuid": job_uuid,
        "miner_hotkey": miner,
        "validator_hotkey": key.ss58_address,
        "timestamp": dt.datetime.now(dt.UTC),
        "executor_class": TEST,
        "ttl": 7,
    }
    return JobStartedPayload(**(values | changes))


def initial(
    job_uuid: str, key: Any = ALICE, executor_class: ExecutorClass = TEST, **changes: Any
) -> V0InitialJobRequest:
    payload = changes.pop("payload", None) or started(job_uuid, key, executor_class=executor_class)
    request = V0InitialJobRequest(
        job_uuid=job_uuid,
        executor_class=executor_class,
        docker_image=changes.pop("docker_image", "busybox"),
        job_started_receipt_payload=payload,
        job_started_receipt_signature=changes.pop("receipt_signature", None) or payload.sign(key),
        executor_timing=changes.pop("timing", None)
        or ExecutorTiming(allowed_leeway=5, download_time_limit=10, execution_time_limit=10, upload_time_limit=10),
        **changes,
    )
    return signed_request(request, key)


def request(job_uuid: str, key: Any = ALICE, **changes: Any) -> V0JobRequest:
    values: dict[str, Any] = {
        "job_uuid": job_uuid,
        "executor_class": TEST,
        "docker_image": "busybox",
        "docker_run_options_preset": DockerPreset.NONE,
        "docker_run_cmd": ["echo", "hé"],
        "env": {"A": "1"},
    }
    return signed_request(V0JobRequest(**(values | changes)), key)


def finished(job_uuid: str, **changes: Any) -> V0JobFinishedRequest:
    values: dict[str, Any] = {"docker_process_stdout": "out", "docker_process_stderr": "", "exit_status": 0}
    return V0JobFinishedRequest(job_uuid=job_uuid, **(values | changes))


def accepted_receipt(job_uuid: str, key: Any = ALICE) -> V0JobAcceptedReceiptRequest:
    now = dt.datetime.now(dt.UTC)
    payload = JobAcceptedPayload(
        job_uuid=job_uuid,
        miner_hotkey=MINER.ss58_address,
        validator_hotkey=key.ss58_address,
        timestamp=now,
        time_accepted=now,
        ttl=60,
    )
    return V0JobAcceptedReceiptRequest(payload=payload, signature=payload.sign(key))


def finished_receipt(job_uuid: str, key: Any = ALICE, signer: Any = None) -> V0JobFinishedReceiptRequest:
    now = dt.datetime.now(dt.UTC)
    payload = JobFinishedPayload(
        job_uuid=job_uuid,
        miner_hotkey=MINER.ss58_address,
        validator_hotkey=key.ss58_address,
        timestamp=now,
        time_started=now,
        time_took_us=1000,
        score_str="30.000000",
    )
    return V0JobFinishedReceiptRequest(payload=payload, signature=payload.sign(signer or key))


class Horde:
    """The miner under test and its fakes."""

    verifier = staticmethod(verify)

    def __init__(self, settings: MinerSettings, chain: FixedChain, timers: Callable[[], Timers] = Timers) -> None:
        self.settings, self.chain, self.launcher = settings, chain, FakeLauncher()
        hotkey = None if settings.trusted_for else MINER
        metrics = MinerMetrics(clock=itertools.count().__next__)  # read anew each time
        self.miner = MinerService(settings, chain, self.launcher, hotkey=hotkey, timers=timers, metrics=metrics)
        self._tasks: list[asyncio.Task[None]] = []

    async def validator(
        self,
        key: Any = ALICE,
        *,
        admitted: bool = True,
        frame_limit: int | None = None,
        extensions: Iterable[Extension] = QUIET_EXTENSIONS,
        through: tuple[Channel, Channel] | None = None,
        early: Iterable[Message] = (),
    ) -> Peer:
        """``through``: both ends of its channel, if not plain ones. ``early``: said before it authenticates."""
        near, far = through or memory_pair(frame_limit, request=announcement(extensions))
        self._tasks.append(asyncio.create_task(self.miner.validators.serve(far, key.ss58_address)))
        peer = Peer(near)
        if admitted:
            await peer.say(*early, self.auth(key))
            await peer.expect("V0ExecutorManifestRequest")
        return peer

    def auth(self, key: Any = ALICE, **changes: Any) -> ValidatorAuthForMiner:
        hotkey = TRUSTED_MINER_HOTKEY if self.settings.trusted_for else MINER.ss58_address
        values: dict[str, Any] = {"miner_hotkey": hotkey, "timestamp": int(time.time())} | changes
        return ValidatorAuthForMiner.make(key, **values)

    async def executor(
        self,
        token: str | None = None,
        frame_limit: int | None = None,
        extensions: Iterable[Extension] = LINK_EXTENSIONS,
    ) -> Peer:
        near, far = memory_pair(frame_limit, request=announcement(extensions))
        await self.executor_at(far, token)
        return Peer(near)

    async def executor_at(self, channel: Channel, token: str | None = None) -> None:
        """Let the executor that was launched last come over this channel."""
        token = token or (await self.launched()).token
        self._tasks.append(asyncio.create_task(self.miner.executors.serve(channel, token)))

    async def begun(
        self, job_uuid: str, extensions: Iterable[Extension] = LINK_EXTENSIONS, **changes: Any
    ) -> tuple[Peer, Peer]:
        """A validator and an executor in the middle of a job: the executor has all of it and is ready.

        ``changes``: of the initial request.
        """
        validator = await self.validator()
        await validator.say(initial(job_uuid, **changes))
        await validator.expect("V0AcceptJobRequest")
        executor = await self.executor(extensions=extensions)
        await executor.expect("V0InitialJobRequest")
        await executor.say(V0ExecutorReadyRequest(job_uuid=job_uuid))
        await validator.expect("V0ExecutorReadyRequest")
        await validator.say(request(job_uuid))
        await executor.expect("V0JobRequest")
        return validator, executor

    async def figures(self) -> dict[str, float]:
        """The metrics that are not zero, as ``name{label="value"}``, without their common prefix."""
        lines = (await self.miner.metrics.render()).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("compute_horde_"))
        return {name.removeprefix("compute_horde_miner_"): float(n) for name, n in pairs if float(n)}

    async def launched(self, count: int = 1) -> FakeExecutor:
        """The executor that was launched last, when there have been so many."""
        await until(lambda: len(self.launcher.launched) >= count)
        return self.launcher.launched[-1]

    async def crash(self) -> None:
        """Stop in the middle: nobody is told anything, and executors live on."""
        await self._hang_up()
        await self.miner.stop()

    async def close(self) -> None:
        await self.miner.stop()
        await self._hang_up()

    async def _hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something has happened."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - any condition will do, few have an event
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def open_horde(
    folder: Path, *, timers: Callable[[], Timers] = Timers, **changes: Any
) -> AsyncIterator[Horde]:
    """``changes``: of the settings."""
    values: dict[str, Any] = {
        "database_url": f"sqlite+aiosqlite:///{folder / 'miner.db'}",
        "executors": {TEST: 2},
        "executor_reconnect_limit": 0.05,
        "executor_exit_limit": 0.05,
    }
    settings = MinerSettings(**(values | changes))
    chain = FixedChain(Directory(validators=frozenset({ALICE.ss58_address, BOB.ss58_address})))
    horde = Horde(settings, chain, timers)
    await horde.miner.open()
    try:
        yield horde
    finally:
        await horde.close()
