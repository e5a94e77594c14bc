"""A facilitator without sockets: HTTP through ASGI, validators through channels in memory, a clock to turn."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.facilitator.app import create_app
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.logs import Pace
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.protocol.signing import (
    SignatureScope,
    SignedFields,
    canonical_text,
    hex_signature,
    sign_payload,
)
from compute_horde.storage.bus import Bus
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.transport.channel import ChannelClosed
from compute_horde.transport.memory import MemoryChannel, memory_pair

ALICE, BOB = throwaway_hotkey("//Alice"), throwaway_hotkey("//Bob")
QUICK = Pace(keep_alive=0.05, answer=0.3, least=0.001, pause=0.01, longest_pause=0.02)
VALIDATOR, OTHER = throwaway_hotkey("//Validator"), throwaway_hotkey("//OtherValidator")


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Peer:
    """The validator's end of a connection."""

    def __init__(self, channel: MemoryChannel, serving: "asyncio.Task[None]") -> None:
        self.channel, self.serving = channel, serving

    async def send(self, message: Any) -> None:
        await self.channel.send(message if isinstance(message, str) else json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.channel.receive(), 5))
        return frame

    async def ask(self, message: Any) -> dict[str, Any]:
        await self.send(message)
        return await self.receive()

    async def status(self, uuid: str, status: str, metadata: Any = None) -> dict[str, Any]:
        return await self.ask(
            {"message_type": "V0JobStatusUpdate", "uuid": uuid, "status": status, "metadata": metadata}
        )

    async def authenticate(self, key: Any) -> dict[str, Any]:
        raw = bytes(key.public_key)
        return await self.ask(
            {
                "message_type": "V0AuthenticationRequest",
                "public_key": raw.hex(),
                "signature": hex_signature(key, raw),
            }
        )

    async def close_code(self) -> int:
        with pytest.raises(ChannelClosed) as closed:
            await asyncio.wait_for(self.channel.receive(), 5)
        return closed.value.code

    async def hang_up(self) -> None:
        await self.channel.close()
        await self.serving


@dataclass
class Bench:
    facilitator: Facilitator
    chain: FixedChain
    clock: Clock
    http: httpx.AsyncClient
    peers: list[Peer] = field(default_factory=list)

    def dial(self, headers: dict[str, str] | None = None) -> Peer:
        near, far = memory_pair(request=headers)
        peer = Peer(near, asyncio.create_task(self.facilitator.serve_validator(far, headers or {})))
        self.peers.append(peer)
        return peer

    async def validator(self, key: Any = VALIDATOR, headers: dict[str, str] | None = None) -> Peer:
        peer = self.dial(headers)
        assert (await peer.authenticate(key)) == {"status": "success", "errors": []}
        return peer

    async def login(self, key: Any = ALICE) -> dict[str, str]:
        nonce = (await self.http.get("/auth/nonce")).json()["nonce"]
        body = {"hotkey": key.ss58_address, "signature": key.sign(nonce.encode()).hex(), "nonce": nonce}
        answer = await self.http.post("/auth/login", json=body)
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    def body(self, **changes: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "target_validator_hotkey": VALIDATOR.ss58_address,
            "executor_class": "always_on.test",
            "docker_image": "alpine:3.19",
            "args": ["sh", "-c", "  héllo "],
            "env": {"B": "2", "A": "1"},
            "use_gpu": True,
            "artifacts_dir": None,
            "on_trusted_miner": False,
            "download_time_limit": 5,
            "execution_time_limit": 10,
            "streaming_start_time_limit": 5,
            "upload_time_limit": 7,
        }
        return {**made, **changes}

    def sign(self, body: dict[str, Any], key: Any = ALICE, ago_s: float = 0) -> dict[str, str]:
        stamp = int((self.clock() - ago_s) * 1e9)
        text = SignedFields.from_body(body).payload()
        return sign_payload(key, text, SignatureScope.SIGNED_FIELDS, stamp).to_headers()

    def sign_whole(self, body: dict[str, Any], key: Any = ALICE, ago_s: float = 0) -> dict[str, str]:
        stamp = int((self.clock() - ago_s) * 1e9)
        return sign_payload(key, canonical_text(body), SignatureScope.FULL_REQUEST, stamp).to_headers()

    async def post_job(self, token: dict[str, str], key: Any = ALICE, **changes: Any) -> httpx.Response:
        body = self.body(**changes)
        return await self.http.post("/api/v1/job-docker/", json=body, headers={**token, **self.sign(body, key)})

    async def figures(self) -> dict[str, float]:
        """The metrics that are not zero, as ``name{label="value"}``, without their common prefix."""
        lines = (await self.facilitator.metrics.render()).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("compute_horde_"))
        return {name.removeprefix("compute_horde_facilitator_"): float(n) for name, n in pairs if float(n)}

    async def job(self, uuid: str, token: dict[str, str]) -> dict[str, Any]:
        answer = await self.http.get(f"/api/v1/jobs/{uuid}/", headers=token)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


DIRECTORY = Directory(
    validators=frozenset({VALIDATOR.ss58_address, OTHER.ss58_address}),
    users=frozenset({ALICE.ss58_address, BOB.ss58_address}),
)


class Replicated(httpx.AsyncBaseTransport):
    """What replicas reach each other by: each is a host of its own."""

    def __init__(self) -> None:
        self.hosts: dict[str, httpx.ASGITransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host not in self.hosts:
            raise httpx.ConnectError("nobody listens there", request=request)
        return await self.hosts[request.url.host].handle_async_request(request)


@contextlib.asynccontextmanager
async def open_bench(
    database_url: str,
    clock: Clock | None = None,
    *,
    host: str = "facilitator",
    bus: Bus | None = None,
    others: Replicated | None = None,
    **more: Any,
) -> AsyncIterator[Bench]:
    """``host``: its name among the ``others``; ``more``: settings."""
    chain, clock, others = FixedChain(DIRECTORY), clock or Clock(), others or Replicated()
    settings = FacilitatorSettings(database_url=database_url, **{"max_body_bytes": 3_000_000, **more})
    facilitator = Facilitator(
        settings,
        chain,
        now=clock,
        keep_alive_s=0.05,
        logs_pace=QUICK,
        explain_s=0.3,
        bus=bus,
        replica_transport=others,
        metrics=FacilitatorMetrics(clock=itertools.count().__next__),  # read anew each time
    )
    facilitator.registry.replica_url = f"http://{host}/"
    await facilitator.open()
    transport = httpx.ASGITransport(app=create_app(facilitator))  # type: ignore[arg-type] # narrower ASGI types
    others.hosts[host] = transport
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
        bench = Bench(facilitator, chain, clock, http)
        yield bench
        others.hosts.pop(host, None)
        await facilitator.hang_up()
        await asyncio.gather(*(peer.serving for peer in bench.peers))
        await facilitator.close()
