"""The client against a facilitator that misbehaves: login, retries, errors, pages."""

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from compute_horde.protocol.signing import Signature, digest
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeAuthenticationError,
    ComputeHordeClient,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeJob,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeTimeoutError,
    ComputeHordeValidationError,
    ComputeHordeValidatorNotConnectedError,
    InlineInputVolume,
)

POST = "/api/v1/job-docker/"
JOBS = "/api/v1/jobs/"


async def submit(client: ComputeHordeClient, **extra: Any) -> ComputeHordeJob:
    return await client.create_job("always_on.test", "SN0", "alpine", ["true"], **extra)


def answer(status: int, body: object = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})


async def test_a_job_is_signed_and_sent() -> None:
    fake = FakeFacilitator()
    async with fake.client("http://horde.test/api/v1") as client:
        job = await submit(client, input_volumes={"/volume/a.txt": InlineInputVolume("eA==")})
    (request,) = fake.sent("POST", POST)
    assert (request.headers["Realm"], request.headers["SubnetID"]) == ("mainnet", "12")
    assert request.headers["X-CH-Signature-Scope"] == "SignedFields"
    assert json.loads(request.content)["target_validator_hotkey"] == "validator"
    assert job.uuid in fake.jobs
    assert job.status == "sent"
    assert (job.result, job.error) == (None, None)


async def test_login_happens_once_for_concurrent_calls() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        await asyncio.gather(*(submit(client) for _ in range(5)))
        assert fake.logins == 1
        fake.expired.add("token-1")
        await asyncio.gather(*(client.get_jobs() for _ in range(5)))
        assert fake.logins == 2
        await client.authenticate()
        assert fake.logins == 3


async def test_an_expired_token_is_renewed_and_the_same_request_sent_again() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        await client.authenticate()
        fake.expired.add("token-1")
        await submit(client)
    first, second = fake.sent("POST", POST)
    assert first.content == second.content
    assert first.headers["X-CH-Signature"] == second.headers["X-CH-Signature"]
    assert first.headers["Authorization"] != second.headers["Authorization"]


async def test_a_token_that_is_refused_twice_ends_it() -> None:
    fake = FakeFacilitator()
    fake.fail(JOBS, *(answer(401, {"detail": "Unauthorized hotkey."}) for _ in range(2)))
    async with fake.client() as client:
        with pytest.raises(ComputeHordeAuthenticationError, match="Unauthorized hotkey"):
            await client.get_jobs()
    assert len(fake.sent("GET", JOBS)) == 2


@pytest.mark.parametrize("status", [400, 401])
async def test_a_refused_login(status: int) -> None:
    fake = FakeFacilitator()
    fake.fail("/auth/login", answer(status, {"error": "Hotkey not allowed"}))
    async with fake.client() as client:
        with pytest.raises(ComputeHordeAuthenticationError, match="Hotkey not allowed") as caught:
            await client.get_jobs()
    assert caught.value.hint
    assert not caught.value.retryable


async def test_a_used_nonce_is_replaced_once() -> None:
    fake = FakeFacilitator()
    fake.fail("/auth/login", answer(400, {"error": "Invalid nonce"}))
    async with fake.client() as client:
        await client.authenticate()
    assert len(fake.sent("GET", "/auth/nonce")) == 2


@pytest.mark.parametrize("token", ["", "a\r\nb", "é"])
async def test_a_malformed_token(token: str) -> None:
    fake = FakeFacilitator()
    fake.fail("/auth/login", answer(200, {"token": token}))
    async with fake.client() as client:
        with pytest.raises(ComputeHordeResponseError) as caught:
            await client.authenticate()
    assert caught.value.code == "malformed_response"


async def test_a_key_that_cannot_sign() -> None:
    class Locked:
        ss58_address = "5Locked"

        def sign(self, data: bytes, /) -> bytes:
            raise RuntimeError("keyfile is locked")

    fake = FakeFacilitator()
    fake.hotkey = Locked()  # type: ignore[assignment] # a key of another library
    async with fake.client() as client:
        with pytest.raises(ComputeHordeAuthenticationError, match="keyfile is locked") as caught:
            await submit(client)
    assert caught.value.code == "signing_failed"


async def test_a_key_that_signs_in_hex_works() -> None:
    fake = FakeFacilitator()

    class HexKey:
        ss58_address = fake.hotkey.ss58_address

        def sign(self, data: bytes, /) -> str:
            return "0x" + data[:64].ljust(64, b"\0").hex()

    fake.hotkey = HexKey()  # type: ignore[assignment] # a key of another library
    async with fake.client() as client:
        assert (await submit(client)).uuid in fake.jobs


async def test_busy_servers_are_tried_again_with_the_same_bytes() -> None:
    fake = FakeFacilitator()
    fake.fail(POST, answer(503), httpx.ConnectError("no"), answer(429, None, Retry_After="3"), answer(500))
    async with fake.client() as client:
        await submit(client)
    requests = fake.sent("POST", POST)
    assert len(requests) == 5
    assert len({(one.content, one.headers["X-CH-Signature"]) for one in requests}) == 1
    assert fake.slept == [0.2, 0.4, 3.0, 1.6]


@pytest.mark.parametrize(
    ("faults", "error", "tries"),
    [
        ([answer(503, None)] * 9, ComputeHordeResponseError, 9),
        ([answer(501, None)], ComputeHordeResponseError, 1),
        ([answer(429, None, Retry_After="3600")], ComputeHordeResponseError, 1),
        ([httpx.ConnectTimeout("slow")] * 27, ComputeHordeTimeoutError, 27),
        ([httpx.ConnectError("refused")] * 27, ComputeHordeConnectionError, 27),
        ([httpx.TooManyRedirects("round and round")], ComputeHordeConnectionError, 1),
    ],
)
async def test_giving_up(faults: list[Any], error: type[ComputeHordeError], tries: int) -> None:
    fake = FakeFacilitator()
    fake.fail(POST, *faults)
    async with fake.client() as client:
        with pytest.raises(error):
            await submit(client)
    assert len(fake.sent("POST", POST)) == tries
    assert sum(fake.slept) <= 25
    assert tries == 1 or sum(fake.slept) > 20


async def test_a_read_that_breaks_off_is_tried_again() -> None:
    fake = FakeFacilitator()
    fake.fail(JOBS, httpx.ReadError("cut off"), answer(503, None, Retry_After="Wed, 01 Jan 2025 00:00:00 GMT"))
    async with fake.client() as client:
        assert await client.get_jobs() == []
    assert fake.slept == [0.2, 0.4]


@pytest.mark.parametrize(
    ("response", "error", "code", "text"),
    [
        (
            answer(400, ["Could not select Validator"]),
            ComputeHordeValidatorNotConnectedError,
            "validator_not_connected",
            "not connected",
        ),
        (answer(400, {"volumes": [{"msg": "bad zip", "loc": [0]}]}), ComputeHordeValidationError, None, "bad zip"),
        (answer(400, {"error": "Invalid signature provided"}), ComputeHordeAuthenticationError, None, "signature"),
        (
            answer(400, {"error": "Invalid signature provided", "details": "signature is 400 s old"}),
            ComputeHordeAuthenticationError,
            "signature_refused",
            "400 s old",
        ),
        (answer(400, {"error": "something"}), ComputeHordeResponseError, "refused", "something"),
        (httpx.Response(400, text="<html>no</html>"), ComputeHordeResponseError, "refused", "html"),
        (answer(413, None), ComputeHordeResponseError, "request_too_large", "413"),
        (answer(418, {"detail": "teapot"}), ComputeHordeResponseError, "unexpected_response", "teapot"),
        (answer(403, {"detail": "no"}), ComputeHordeAuthenticationError, None, "no"),
        (
            answer(403, {"error": "n", "problem": {"code": "banned"}}),
            ComputeHordeAuthenticationError,
            "banned",
            "n",
        ),
        (answer(404, {"error": "n", "problem": {"code": "no_job"}}), ComputeHordeNotFoundError, "no_job", "n"),
        (answer(404, {"detail": "gone"}), ComputeHordeNotFoundError, "not_found", "gone"),
        (httpx.Response(201, text="<html>"), ComputeHordeResponseError, "malformed_response", "malformed"),
        (answer(201, {"uuid": 3}), ComputeHordeResponseError, "malformed_response", "malformed"),
        (httpx.Response(201, content=b"\xff\xfe"), ComputeHordeResponseError, "malformed_response", "malformed"),
        (
            answer(409, {"detail": "queue is full", "problem": {"code": "queue_full", "retryable": True}}),
            ComputeHordeResponseError,
            "queue_full",
            "queue is full",
        ),
    ],
)
async def test_answers_become_errors(
    response: httpx.Response, error: type[ComputeHordeError], code: str | None, text: str
) -> None:
    fake = FakeFacilitator()
    fake.fail(POST, response)
    async with fake.client() as client:
        with pytest.raises(error) as caught:
            await submit(client)
    assert text in caught.value.message
    assert code in (None, caught.value.code)
    assert type(caught.value) is error


async def test_a_field_refused_by_the_server_has_the_arguments_name() -> None:
    fake = FakeFacilitator()
    fake.fail(POST, answer(400, {"download_time_limit": ["A valid integer is required."]}))
    async with fake.client() as client:
        with pytest.raises(ComputeHordeValidationError) as caught:
            await submit(client)
    assert caught.value.field == "download_time_limit_sec"


async def test_get_job() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        job = await submit(client)
        assert (await client.get_job(job.uuid.upper())).uuid == job.uuid
        for unknown in (str(uuid.uuid4()), "nonsense", "../jobs"):
            with pytest.raises(ComputeHordeNotFoundError):
                await client.get_job(unknown)
        fake.fail(f"{JOBS}{uuid.UUID(int=1)}/", answer(200, fake.jobs[job.uuid].model_dump(mode="json")))
        with pytest.raises(ComputeHordeResponseError, match="not"):
            await client.get_job(str(uuid.UUID(int=1)))


@pytest.mark.parametrize("count", [0, 1, 10, 11, 25])
async def test_iterating_gives_every_job_once_newest_first(count: int) -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        made = [(await submit(client)).uuid for _ in range(count)]
        assert [job.uuid async for job in client.iter_jobs()] == made[::-1]


async def test_a_date_to_try_again_at() -> None:
    fake = FakeFacilitator()
    fake.fail(JOBS, answer(503, None, Retry_After="Wed, 01 Jan 2025 00:00:00 -0000"))
    fake.fail(JOBS, answer(503, None, Retry_After="Thu, 01 Jan 2122 00:00:00 GMT"))
    async with fake.client("http://127.0.0.1:1/") as client:
        with pytest.raises(ComputeHordeResponseError, match="503"):
            await client.get_jobs()
    assert fake.slept == [0.2]


@pytest.mark.parametrize("path", ["/auth/nonce", "/auth/login"])
async def test_a_login_that_finds_the_facilitator_down(path: str) -> None:
    fake = FakeFacilitator()
    fake.fail(path, *(answer(502) for _ in range(9)))
    async with fake.client() as client:
        with pytest.raises(ComputeHordeResponseError) as caught:
            await client.authenticate()
    assert (caught.value.status_code, caught.value.code, caught.value.retryable) == (
        502,
        "facilitator_failed",
        True,
    )


@pytest.mark.parametrize("arguments", [(0, 10), (1, 0), (1, 257), (True, 10), ("1", 10)])
async def test_wrong_pages(arguments: tuple[Any, Any]) -> None:
    async with FakeFacilitator().client() as client:
        with pytest.raises(ComputeHordeValidationError):
            await client.get_jobs(*arguments)


async def test_a_cheat_report_is_signed_whole() -> None:
    fake = FakeFacilitator()
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    async with fake.client() as client:
        await client.report_cheated_job(first, second, details={"why": "é"})
        for wrong in (("x", second), (first, "y")):
            with pytest.raises(ComputeHordeValidationError):
                await client.report_cheated_job(*wrong)
        with pytest.raises(ComputeHordeValidationError):
            await client.report_cheated_job(first, second, details=object())  # type: ignore[arg-type] # what a caller without types may pass
    (request,) = fake.sent("POST", "/api/v1/cheated-job/")
    signature = Signature.from_headers(request.headers)
    assert request.headers["X-CH-Signature-Scope"] == "FullRequest"
    body = json.loads(request.content)
    assert body == {"job_uuid": first, "trusted_job_uuid": second, "details": {"why": "é"}}
    text = json.dumps(body, sort_keys=True)
    assert signature.raw == digest(signature.timestamp_ns, text)


def test_one_client_serves_several_loops() -> None:
    fake = FakeFacilitator()
    client = fake.client()
    job = asyncio.run(submit(client))
    assert [other.uuid for other in asyncio.run(client.get_jobs())] == [job.uuid]
