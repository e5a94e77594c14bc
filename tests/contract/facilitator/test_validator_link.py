"""The validators' WebSocket: section 5, and the gaps G13, G14, G15, G16, G20."""

import asyncio
from typing import Any

import pytest

from compute_horde.chain.port import Directory

SUCCESS = {"status": "success", "errors": []}
UPDATE = "V0JobStatusUpdate"


def kinds(response: dict[str, Any]) -> list[str]:
    assert response["status"] == "error"
    return [error["type"] for error in response["errors"]]


def auth(public_key: str, signature: str = "0x00") -> dict[str, str]:
    return {"message_type": "V0AuthenticationRequest", "public_key": public_key, "signature": signature}


async def sent_job(bench: Any, peer: Any) -> tuple[dict[str, str], str]:
    token = await bench.login()
    uuid = str((await bench.post_job(token)).json()["uuid"])
    await peer.receive()
    return token, uuid


async def test_messages_before_authentication_are_refused_and_it_stays(bench: Any, validator_key: Any) -> None:
    peer = bench.dial()
    assert kinds(await peer.ask({"message_type": "V0Heartbeat"})) == ["auth.not_authenticated"]
    assert await peer.authenticate(validator_key) == SUCCESS


async def test_a_second_authentication_is_refused_and_it_stays(bench: Any, validator_key: Any) -> None:
    peer = await bench.validator()
    assert kinds(await peer.authenticate(validator_key)) == ["auth.already_authenticated"]
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]


async def test_a_validator_that_is_not_in_the_set_is_closed_with_3001(bench: Any, alice: Any) -> None:
    peer = bench.dial()
    assert kinds(await peer.authenticate(alice)) == ["auth.validator_not_found"]
    assert await peer.close_code() == 3001


@pytest.mark.parametrize("public_key", ["zz", "", "00", "00" * 33])
async def test_a_public_key_that_is_none_is_a_typed_error_g14(bench: Any, public_key: str) -> None:
    peer = bench.dial()
    assert kinds(await peer.ask(auth(public_key))) == ["auth.validator_not_found"]
    assert await peer.close_code() == 3001


@pytest.mark.parametrize("signature", ["0x" + "00" * 64, "zz", ""])
async def test_a_wrong_signature_is_closed_with_3000(bench: Any, validator_key: Any, signature: str) -> None:
    peer = bench.dial()
    asked = await peer.ask(auth(bytes(validator_key.public_key).hex(), signature))
    assert kinds(asked) == ["auth.signature_invalid"]
    assert await peer.close_code() == 3000


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ("nonsense", "json_invalid"),
        ("{}", "union_tag_not_found"),
        ('{"message_type": "V9"}', "union_tag_invalid"),
        ('{"message_type": "V0Heartbeat", "more": 1}', "extra_forbidden"),
        ('{"message_type": "V0JobStatusUpdate", "uuid": 1, "status": "received"}', "string_type"),
        ('{"message_type": "V0JobStatusUpdate", "uuid": "1"}', "missing"),
    ],
)
async def test_a_malformed_frame_is_answered_and_it_stays(bench: Any, frame: str, kind: str) -> None:
    peer = await bench.validator()
    assert kinds(await peer.ask(frame)) == [kind]
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]


async def test_heartbeats_and_specs_get_no_answer(bench: Any) -> None:
    peer = await bench.validator()
    await peer.send({"message_type": "V0Heartbeat"})
    await peer.send(
        {
            "message_type": "V0MachineSpecsUpdate",
            "miner_hotkey": "m",
            "validator_hotkey": "v",
            "specs": {},
            "batch_id": "b",
        }
    )
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]


@pytest.mark.parametrize("uuid", ["nonsense", "", "11111111-1111-4111-8111-111111111111"])
async def test_an_unknown_job_is_a_typed_error_g14(bench: Any, uuid: str) -> None:
    assert kinds(await (await bench.validator()).status(uuid, "received")) == ["job.not_found"]


async def test_another_validators_job_cannot_be_updated_g16(bench: Any, other_key: Any) -> None:
    peer = await bench.validator()
    token, uuid = await sent_job(bench, peer)
    thief = await bench.validator(other_key)
    assert kinds(await thief.status(uuid, "received")) == ["job.not_found"]
    assert len((await bench.job(uuid, token))["status_history"]) == 1


@pytest.mark.parametrize(
    "steps", [("received", "received"), ("accepted", "received"), ("rejected", "completed"), ("sent",)]
)
async def test_a_status_out_of_turn_is_refused_g16(bench: Any, steps: tuple[str, ...]) -> None:
    peer = await bench.validator()
    token, uuid = await sent_job(bench, peer)
    *first, last = steps
    for status in first:
        assert await peer.status(uuid, status) == SUCCESS
    metadata = {"miner_response": {"docker_process_stdout": "", "docker_process_stderr": ""}}
    assert kinds(await peer.status(uuid, last, metadata)) == ["job.integrity_error"]
    assert len((await bench.job(uuid, token))["status_history"]) == len(steps)


@pytest.mark.parametrize("status", ["dancing", "unknown", "cancelled"])
async def test_an_unknown_status_is_never_stored_g15(bench: Any, status: str) -> None:
    peer = await bench.validator()
    token, uuid = await sent_job(bench, peer)
    assert kinds(await peer.status(uuid, status)) == ["job.status_unknown"]
    assert (await bench.job(uuid, token))["status"] == "Sent"


@pytest.mark.parametrize("status", ["completed", "streaming_ready"])
@pytest.mark.parametrize("metadata", [None, {}])
async def test_a_result_without_metadata_is_a_typed_error_g14(bench: Any, status: str, metadata: Any) -> None:
    peer = await bench.validator()
    _, uuid = await sent_job(bench, peer)
    assert kinds(await peer.status(uuid, status, metadata)) == ["job.metadata_missing"]
    assert await peer.status(uuid, "received") == SUCCESS


async def test_the_newest_connection_gets_the_job_g16(bench: Any) -> None:
    old, new = await bench.validator(), await bench.validator()
    token, uuid = await sent_job(bench, new)
    assert kinds(await old.status("x", "received")) == ["job.not_found"]  # and no job came before it
    assert await old.status(uuid, "received") == SUCCESS
    await new.hang_up()
    await bench.post_job(token)
    assert (await old.receive())["message_type"] == "V2JobRequest"


async def test_a_connection_that_ended_is_forgotten_at_once_g13(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    await peer.hang_up()
    assert bench.facilitator.links.all() == []
    assert (await bench.post_job(token)).json() == ["Could not select Validator"]


async def test_a_connection_whose_handler_breaks_is_forgotten_g13(bench: Any, monkeypatch: Any) -> None:
    async def broken(_link: Any, **_: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(bench.facilitator.delivering, "hand_over", broken)
    peer = await bench.validator()
    assert await peer.close_code() == 1011
    await peer.serving
    assert bench.facilitator.links.all() == []


async def test_unconfirmed_jobs_are_pushed_again_at_reconnect(bench: Any) -> None:
    peer = await bench.validator()
    _, first = await sent_job(bench, peer)
    _, second = await sent_job(bench, peer)
    _, third = await sent_job(bench, peer)
    await peer.status(second, "received")
    await peer.hang_up()
    again = await bench.validator()
    assert [(await again.receive())["uuid"] for _ in range(2)] == [first, third]
    assert kinds(await again.status("x", "received")) == ["job.not_found"]


async def test_a_job_too_large_for_the_new_connection_stays_behind(bench: Any, big_frames: Any) -> None:
    peer, token = await bench.validator(headers=big_frames), await bench.login()
    volume = {"volume_type": "inline", "contents": "A" * 1_100_000, "relative_path": None}
    assert (await bench.post_job(token, volumes=[volume])).status_code == 201
    await peer.hang_up()
    small = await bench.validator()
    assert kinds(await small.status("x", "received")) == ["job.not_found"]
    large = await bench.validator(headers=big_frames)
    assert (await large.receive())["message_type"] == "V2JobRequest"


async def test_a_validator_that_left_the_set_is_closed_at_its_next_frame(bench: Any) -> None:
    peer = await bench.validator()
    bench.chain.current = Directory()
    assert kinds(await peer.ask({"message_type": "V0Heartbeat"})) == ["auth.validator_not_found"]
    assert await peer.close_code() == 3001


async def test_the_sweep_closes_the_silent_and_those_that_left(bench: Any, other_key: Any) -> None:
    silent = await bench.validator()
    bench.clock.ahead += 601
    lively = await bench.validator(other_key)
    await bench.facilitator.desk.sweep()
    assert await silent.close_code() == 3001
    bench.chain.current = Directory()
    await bench.facilitator.desk.sweep()
    assert await lively.close_code() == 3001
    await asyncio.gather(silent.serving, lively.serving)
    assert bench.facilitator.links.all() == []


async def test_a_database_failure_is_answered_and_it_stays(bench: Any, monkeypatch: Any) -> None:
    peer = await bench.validator()
    _, uuid = await sent_job(bench, peer)

    async def broken(*_args: Any) -> str:
        raise RuntimeError("no database")

    with monkeypatch.context() as patch:
        patch.setattr(bench.facilitator.store, "add_status", broken)
        assert kinds(await peer.status(uuid, "received")) == ["job.internal_error"]
    assert await peer.status(uuid, "received") == SUCCESS
