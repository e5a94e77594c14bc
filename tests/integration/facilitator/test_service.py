"""The service over real sockets: login, a job, its validator, its events, and a prompt stop."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.protocol.extensions import LINK_EXTENSIONS, announced, announcement
from compute_horde.protocol.signing import SignatureScope, SignedFields, hex_signature, sign_payload
from compute_horde.transport.channel import Channel
from compute_horde.transport.websocket import WebSocketDialer

ALICE, VALIDATOR = throwaway_hotkey("//Alice"), throwaway_hotkey("//Validator")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[FacilitatorService]:
    directory = Directory(
        validators=frozenset({VALIDATOR.ss58_address}),
        users=frozenset({ALICE.ss58_address}),
    )
    settings = FacilitatorSettings(port=0, database_url=f"sqlite+aiosqlite:///{tmp_path}/facilitator.db")
    service = FacilitatorService(settings, FixedChain(directory))
    await service.start()
    yield service
    await service.stop()


async def login(http: httpx.AsyncClient) -> None:
    nonce = (await http.get("/auth/nonce")).json()["nonce"]
    body = {"hotkey": ALICE.ss58_address, "signature": ALICE.sign(nonce.encode()).hex(), "nonce": nonce}
    token = (await http.post("/auth/login", json=body)).json()["token"]
    http.headers["Authorization"] = f"Bearer {token}"


async def connect(service: FacilitatorService) -> Channel:
    url = service.url.replace("http", "ws") + "ws/v0/"
    channel = await WebSocketDialer().dial(url, headers=announcement(), max_frame_bytes=MAX_MINER_FRAME_BYTES)
    assert announced(channel.peer_headers) == LINK_EXTENSIONS
    raw = bytes(VALIDATOR.public_key)
    message = {"message_type": "V0AuthenticationRequest", "public_key": raw.hex()}
    await channel.send(json.dumps({**message, "signature": hex_signature(VALIDATOR, raw)}))
    assert json.loads(await channel.receive())["status"] == "success"
    return channel


async def create(http: httpx.AsyncClient) -> str:
    body: dict[str, Any] = {
        "target_validator_hotkey": VALIDATOR.ss58_address,
        "executor_class": "always_on.test",
        "docker_image": "alpine",
        "download_time_limit": 1,
        "execution_time_limit": 1,
        "streaming_start_time_limit": 1,
        "upload_time_limit": 1,
    }
    text = SignedFields.from_body(body).payload()
    signature = sign_payload(ALICE, text, SignatureScope.SIGNED_FIELDS, time.time_ns())
    answer = await http.post("/api/v1/job-docker/", json=body, headers=signature.to_headers())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["uuid"])


async def test_a_job_travels_over_real_sockets(service: FacilitatorService) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:
        await login(http)
        channel = await connect(service)
        async with http.stream("GET", "/api/v1/events/") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == ": connected"
            uuid = await create(http)
            assert json.loads(await channel.receive())["uuid"] == uuid
            update = {"message_type": "V0JobStatusUpdate", "uuid": uuid, "status": "received"}
            await channel.send(json.dumps(update))
            assert json.loads(await channel.receive())["status"] == "success"
            data = [line async for line in _first(lines, 2)]
        assert [json.loads(line)["entry"]["status"] for line in data] == ["sent", "received"]
        await channel.close()


async def _first(lines: Any, count: int) -> Any:
    while count:
        if (line := await anext(lines)).startswith("data: "):
            count -= 1
            yield line.removeprefix("data: ")


async def test_output_and_cancelling_travel_over_real_sockets(service: FacilitatorService) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:
        await login(http)
        channel = await connect(service)
        uuid = await create(http)
        await channel.receive()
        update = {"message_type": "V0JobStatusUpdate", "uuid": uuid, "status": "volumes_ready"}
        await channel.send(json.dumps(update))
        await channel.receive()
        async with http.stream("GET", f"/api/v1/jobs/{uuid}/logs/") as stream:
            lines = stream.aiter_lines()
            while await anext(lines):
                pass
            asked = json.loads(await channel.receive())
            piece = {"stream": "stdout", "offset": 0, "text": "printed\n"}
            told = {"message_type": "V0JobLogsResponse", "state": "ended", "position": 8, "pieces": [piece]}
            await channel.send(json.dumps({**told, "job_uuid": uuid, "request_id": asked["request_id"]}))
            data = [line async for line in lines if line.startswith("data: ")]
        assert json.loads(data[0][6:])["pieces"] == [piece]
        assert data[1:] == ['data: {"reason":"ended"}']
        assert (await http.post(f"/api/v1/jobs/{uuid}/cancel/")).json()["cancel_requested"] is True
        assert json.loads(await channel.receive()) == {"message_type": "V0CancelJobRequest", "job_uuid": uuid}
        await channel.close()


async def test_stop_is_prompt_with_a_stream_and_a_validator(service: FacilitatorService) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:
        await login(http)
        channel = await connect(service)
        async with http.stream("GET", "/api/v1/events/") as stream:
            lines = stream.aiter_lines()
            while await anext(lines):  # the first event is but a greeting
                pass
            began = time.monotonic()
            await service.stop()
            assert time.monotonic() - began < 2
            assert [line async for line in lines if line.strip()] == []
        await channel.close()


async def test_it_starts_again_on_the_same_database(service: FacilitatorService) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:
        await login(http)
        channel = await connect(service)
        uuid = await create(http)
        await channel.receive()
        await service.stop()
        await service.stop()
        await service.start()
        http.base_url = httpx.URL(service.url)
        assert (await http.get(f"/api/v1/jobs/{uuid}/")).json()["status"] == "Sent"
        again = await connect(service)
        assert json.loads(await again.receive())["uuid"] == uuid
        await channel.close()
        await again.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_two_services_share_postgresql_over_real_sockets(postgres_url: str, order: int) -> None:
    chain = FixedChain(
        Directory(validators=frozenset({VALIDATOR.ss58_address}), users=frozenset({ALICE.ss58_address}))
    )
    settings = FacilitatorSettings(port=0, database_url=postgres_url)
    services = [FacilitatorService(settings, chain) for _ in range(2)]
    await asyncio.gather(*(service.start() for service in services))  # both migrate, both make a secret
    near, far = services[::order]
    async with httpx.AsyncClient(base_url=far.url) as http:
        await login(http)
        channel = await connect(near)
        async with http.stream("GET", "/api/v1/events/") as stream:
            lines = stream.aiter_lines()
            while await anext(lines):
                pass
            uuid = await create(http)
            assert json.loads(await channel.receive())["uuid"] == uuid
            await channel.send(
                json.dumps({"message_type": "V0JobStatusUpdate", "uuid": uuid, "status": "received"})
            )
            assert json.loads(await channel.receive())["status"] == "success"
            data = [json.loads(line)["entry"]["status"] async for line in _first(lines, 2)]
        assert data == ["sent", "received"]
        asking = asyncio.create_task(http.get(f"/api/v1/jobs/{uuid}/explanation/"))
        asked = json.loads(await channel.receive())
        words = {"job_uuid": uuid, "state": "received", "summary": "Soon.", "reported_by": "validator"}
        told = {"message_type": "V0ExplainJobResponse", "request_id": asked["request_id"], "job_uuid": uuid}
        await channel.send(json.dumps({**told, "explanation": words}))
        assert (await asking).json()["summary"] == "Soon."
        await channel.close()
    await asyncio.gather(*(service.stop() for service in services))
