"""Streaming jobs: one key pair per job, and waiting until the job listens (PROTOCOL.md 4.6)."""

import asyncio
import datetime as dt
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJob,
    ComputeHordeJobError,
    ComputeHordeJobTimeoutError,
    ComputeHordeUnsupportedError,
)

FAST: dict[str, Any] = {"poll_first_s": 0.001, "poll_cap_s": 0.004}
SERVER = {"streaming_server_cert": "PEM", "streaming_server_address": "10.0.0.1", "streaming_server_port": 6006}
READY: dict[str, Any] = {"streaming_details": SERVER}
GONE: dict[str, Any] = {
    "horde_failure_details": {"reported_by": "miner", "reason": "streaming_failed", "message": "no port"}
}
DONE: dict[str, Any] = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}


@pytest.fixture
def fake() -> FakeFacilitator:
    return FakeFacilitator()


@pytest.fixture
async def client(fake: FakeFacilitator) -> AsyncIterator[ComputeHordeClient]:
    async with fake.client(**FAST) as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def submit(client: ComputeHordeClient) -> ComputeHordeJob:
    """Any job: who waits does not look at the specification."""
    return await client.create_job("always_on.test", "SN0", "alpine")


async def test_each_job_has_its_own_key(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    one, two, plain = await asyncio.gather(
        client.create_job("always_on.test", "SN0", "alpine", streaming=True),
        client.create_job("always_on.test", "SN0", "alpine", streaming=True),
        client.create_job("always_on.test", "SN0", "alpine"),
    )
    assert (plain.streaming_public_cert, plain.streaming_private_key) == (None, None)
    sent = [fake.jobs[job.uuid].streaming_client_cert for job in (one, two, plain)]
    assert len(set(sent)) == 3
    for job, pem in zip((one, two), sent, strict=False):
        certificate = job.streaming_public_cert
        assert certificate is not None
        assert job.streaming_private_key is not None
        assert x509.load_pem_x509_certificate(pem.encode()) == certificate
        assert certificate.public_key() == job.streaming_private_key.public_key()
        await job.refresh_from_facilitator()
        assert job.streaming_public_cert is certificate
    found = await client.get_job(one.uuid)
    assert (found.streaming_public_cert, found.streaming_private_key) == (None, None)


def test_the_certificate_is_what_peers_expect() -> None:
    x509 = pytest.importorskip("cryptography.x509")
    from compute_horde_sdk._internal.streaming import make_streaming_keys

    made = make_streaming_keys()
    certificate: Any = made.certificate
    assert made.pem.startswith("-----BEGIN CERTIFICATE-----")
    assert "-----BEGIN" not in repr(made)
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == "CN=localhost"
    assert made.private_key.key_size == 2048
    assert certificate.signature_hash_algorithm.name == "sha256"
    certificate.verify_directly_issued_by(certificate)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    now = dt.datetime.now(dt.UTC)
    assert certificate.not_valid_before_utc < now - dt.timedelta(minutes=4)
    assert dt.timedelta(days=364) < certificate.not_valid_after_utc - now <= dt.timedelta(days=365)


async def test_without_the_extra_nothing_is_sent(
    fake: FakeFacilitator, client: ComputeHordeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ComputeHordeUnsupportedError, match=r"compute-horde\[streaming\]"):
        await client.create_job("always_on.test", "SN0", "alpine", streaming=True)
    assert fake.requests == []


async def test_waiting_until_the_job_listens(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    assert (job.streaming_server_cert, job.streaming_server_address, job.streaming_server_port) == (
        None,
        None,
        None,
    )
    waiting = asyncio.create_task(job.wait_for_streaming(timeout=5))
    await asyncio.sleep(0.02)
    fake.advance(job.uuid, "accepted")
    await asyncio.sleep(0.02)
    assert not waiting.done()
    fake.advance(job.uuid, "streaming_ready", READY)
    await waiting
    assert job.status.is_streaming_ready()
    assert (job.streaming_server_cert, job.streaming_server_address, job.streaming_server_port) == (
        "PEM",
        "10.0.0.1",
        6006,
    )
    await job.wait_for_streaming(timeout=0)


async def test_a_job_that_is_already_further(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    created = await submit(client)
    fake.advance(created.uuid, "streaming_ready", READY)
    fake.advance(created.uuid, "execution_done")
    await created.wait_for_streaming(timeout=5)
    found = await client.get_job(created.uuid)
    await found.wait_for_streaming(timeout=0)
    assert found.streaming_server_port == 6006


async def test_the_job_object_tells_where_the_history_does_not(
    fake: FakeFacilitator, client: ComputeHordeClient
) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "streaming_ready", {}, **SERVER)
    await job.refresh_from_facilitator()
    assert (job.streaming_server_address, job.streaming_server_port) == ("10.0.0.1", 6006)


async def test_a_job_that_fails_before(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    waiting = asyncio.create_task(job.wait_for_streaming())
    await asyncio.sleep(0.02)
    fake.advance(job.uuid, "horde_failed", GONE)
    with pytest.raises(ComputeHordeJobError, match="no port") as caught:
        await waiting
    assert caught.value is job.error
    with pytest.raises(ComputeHordeJobError, match="no port"):
        await job.wait_for_streaming()


async def test_a_job_that_completed(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    fake.advance(job.uuid, "streaming_ready", READY)
    fake.advance(job.uuid, "completed", DONE)
    await job.wait()
    with pytest.raises(ComputeHordeJobError) as caught:
        await job.wait_for_streaming()
    assert caught.value.code == "streaming_over"


async def test_its_timeout(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    with pytest.raises(ComputeHordeJobTimeoutError, match="not ready to stream"):
        await job.wait_for_streaming(timeout=0.02)


async def test_a_server_of_an_earlier_attempt_is_gone(fake: FakeFacilitator, client: ComputeHordeClient) -> None:
    job = await submit(client)
    first = {"attempt": {"number": 1, "of": 3, "miner_hotkey": "5M"}}
    fake.advance(job.uuid, "accepted", first)
    fake.advance(job.uuid, "streaming_ready", READY, **SERVER)
    fake.retry(job.uuid, GONE, 2)
    await job.refresh_from_facilitator()
    assert (job.streaming_server_address, job.streaming_server_port) == (None, None)
    waiting = asyncio.create_task(job.wait_for_streaming())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    fake.advance(job.uuid, "accepted", {"attempt": {"number": 2, "of": 3, "miner_hotkey": "5N"}})
    fake.advance(job.uuid, "streaming_ready", {"streaming_details": {**SERVER, "streaming_server_port": 7}})
    await waiting
    assert (job.streaming_server_address, job.streaming_server_port) == ("10.0.0.1", 7)
