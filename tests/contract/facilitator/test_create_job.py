"""POST /api/v1/job-docker/: section 2.5, and the gaps G3, G4, G7, G20."""

import asyncio
import json
from typing import Any

import pytest

URL = "/api/v1/job-docker/"
PUT = {
    "output_upload_type": "single_file_put",
    "url": "https://example.com/out?sig=1",
    "relative_path": "out.txt",
    "signed_headers": None,
}
POST = {
    "output_upload_type": "single_file_post",
    "url": "https://example.com/out",
    "form_fields": {"z": "1", "a": "2"},
    "relative_path": "two.txt",
    "signed_headers": None,
}
FILE = {"volume_type": "single_file", "url": "https://example.com/data.json", "relative_path": "data.json"}


async def test_a_job_is_stored_pushed_and_answered(bench: Any, validator_key: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    answer = await bench.post_job(token, volumes=[FILE], uploads=[PUT, POST], tag="t", job_namespace="SN1.0")
    assert answer.status_code == 201
    job = answer.json()
    assert job["status"] == "Sent"
    assert [(entry["status"], entry["metadata"]) for entry in job["status_history"]] == [("sent", {})]
    assert job["created_at"] == job["last_update"] == job["status_history"][0]["created_at"]
    assert job["created_at"].endswith("Z")
    assert (job["volumes"], job["uploads"], job["tag"]) == ([FILE], [PUT, POST], "t")
    assert (job["stdout"], job["stderr"], job["artifacts"], job["upload_results"]) == ("", "", {}, {})
    assert list(job["env"]) == ["B", "A"]
    frame = await peer.receive()
    assert frame["message_type"] == "V2JobRequest"
    assert frame["uuid"] == job["uuid"]
    assert frame["volume"] == {"volume_type": "multi_volume", "volumes": [FILE]}
    assert frame["output_upload"]["system_output"] is None
    assert list(frame["output_upload"]["uploads"][1]["form_fields"]) == ["z", "a"]
    assert list(frame["env"]) == ["B", "A"]


async def test_text_is_never_trimmed_g7(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    args = [" padded ", "   ", ""]
    answer = await bench.post_job(token, args=args)
    assert answer.json()["args"] == args
    assert (await peer.receive())["args"] == args


async def test_a_null_artifacts_dir_is_none_g3(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    answer = await bench.post_job(token, artifacts_dir=None)
    assert (answer.status_code, answer.json()["artifacts_dir"]) == (201, "")
    assert (await peer.receive())["artifacts_dir"] is None


async def test_streaming_details_are_mapped(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    answer = await bench.post_job(token, streaming_details={"public_key": "PEM"})
    assert answer.json()["streaming_client_cert"] == "PEM"
    assert (await peer.receive())["streaming_details"] == {"public_key": "PEM", "executor_ip": None}


async def test_the_same_signature_again_is_the_same_job(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = bench.body()
    headers = {**token, **bench.sign(body)}
    first = await bench.http.post(URL, json=body, headers=headers)
    second = await bench.http.post(URL, json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["uuid"] == second.json()["uuid"]
    await peer.receive()
    await peer.hang_up()
    third = await bench.http.post(URL, json=body, headers=headers)
    assert third.json()["uuid"] == first.json()["uuid"]
    assert (await bench.http.get("/api/v1/jobs/", headers=token)).json()["count"] == 1


async def test_a_signature_cannot_be_used_at_a_second_validator(bench: Any, other_key: Any) -> None:
    await bench.validator()
    await bench.validator(other_key)
    token, body = await bench.login(), bench.body()
    headers = {**token, **bench.sign(body)}
    await bench.http.post(URL, json=body, headers=headers)
    elsewhere = {**body, "target_validator_hotkey": other_key.ss58_address}
    answer = await bench.http.post(URL, json=elsewhere, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid signature provided")


async def test_the_same_creation_sent_many_times_at_once_is_one_job_and_one_push(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = bench.body()
    headers = {**token, **bench.sign(body)}
    answers = await asyncio.gather(*(bench.http.post(URL, json=body, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["uuid"] for answer in answers}) == 1
    assert (await peer.receive())["uuid"] == answers[0].json()["uuid"]
    assert (await peer.status("x", "received"))["status"] == "error"  # the next frame: there was no second push
    assert (await bench.http.get("/api/v1/jobs/", headers=token)).json()["count"] == 1


async def test_a_retry_long_after_its_signature_ran_out_finds_its_job(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = bench.body()
    headers = bench.sign(body)
    first = await bench.http.post(URL, json=body, headers={**token, **headers})
    await peer.hang_up()
    bench.clock.ahead += 3000
    late = await bench.http.post(URL, json=body, headers={**token, **headers})
    assert (late.status_code, late.json()["uuid"]) == (201, first.json()["uuid"])


async def test_an_old_signature_does_not_stand_for_another_body(bench: Any) -> None:
    await bench.validator()
    token, body = await bench.login(), bench.body()
    headers = {**token, **bench.sign(body)}
    await bench.http.post(URL, json=body, headers=headers)
    for changed, stamp in (({"docker_image": "evil"}, {}), ({}, {"X-CH-Timestamp-NS": "1"})):
        answer = await bench.http.post(URL, json={**body, **changed}, headers={**headers, **stamp})
        assert (answer.status_code, answer.json()["error"]) == (400, "Invalid signature provided")


@pytest.mark.parametrize(
    "unsigned",
    [
        {"tag": "other"},
        {"job_namespace": "SN2.0"},
        {"run_cross_validation": True},
    ],
)
async def test_what_is_not_signed_makes_no_second_job(bench: Any, unsigned: dict[str, Any]) -> None:
    await bench.validator()
    token, body = await bench.login(), bench.body(tag="first", job_namespace="SN1.0")
    headers = {**token, **bench.sign(body)}
    first = await bench.http.post(URL, json=body, headers=headers)
    second = await bench.http.post(URL, json={**body, **unsigned}, headers=headers)
    assert (second.status_code, second.json()) == (201, first.json())


async def test_a_repetition_named_in_a_retry_makes_no_second_job(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    plain = (await bench.post_job(token)).json()["uuid"]
    body = bench.body(on_trusted_miner=True)
    headers = {**token, **bench.sign(body)}
    first = await bench.http.post(URL, json=body, headers=headers)
    second = await bench.http.post(URL, json={**body, "cross_validates": plain}, headers=headers)
    assert (second.status_code, second.json()) == (201, first.json())
    assert (await bench.job(plain, token))["trusted_job_uuid"] is None


async def test_no_signature_is_400_g4(bench: Any) -> None:
    token = await bench.login()
    answer = await bench.http.post(URL, json=bench.body(), headers=token)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "Signature not found",
        "details": "Request signature not found, but is required",
    }


@pytest.mark.parametrize("name", ["X-CH-Signature-Type", "X-CH-Signatory", "X-CH-Timestamp-NS", "X-CH-Signature"])
async def test_each_missing_signature_header_is_named_g4(bench: Any, name: str) -> None:
    token, body = await bench.login(), bench.body()
    headers = bench.sign(body)
    del headers[name]
    answer = await bench.http.post(URL, json=body, headers={**token, **headers})
    assert (answer.status_code, answer.json()["error"]) == (400, "Signature not found")
    assert name in answer.json()["details"]


@pytest.mark.parametrize(
    "broken",
    [
        {"X-CH-Timestamp-NS": "soon"},
        {"X-CH-Timestamp-NS": "-1"},
        {"X-CH-Timestamp-NS": "9" * 5000},
        {"X-CH-Signature": "not base64!"},
        {"X-CH-Signature": "AAAA"},
        {"X-CH-Signature-Scope": "Nothing"},
        {"X-CH-Signature-Scope": "FullRequest"},
        {"X-CH-Signatory": "nobody"},
    ],
)
async def test_a_bad_signature_header_is_400_g4(bench: Any, broken: dict[str, str]) -> None:
    await bench.validator()
    token, body = await bench.login(), bench.body()
    answer = await bench.http.post(URL, json=body, headers={**token, **bench.sign(body), **broken})
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid signature provided")


async def test_a_signature_of_another_body_is_400(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    headers = {**token, **bench.sign(bench.body())}
    answer = await bench.http.post(URL, json=bench.body(docker_image="evil"), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid signature provided")


async def test_a_signature_by_another_user_is_400(bench: Any, bob: Any) -> None:
    await bench.validator()
    answer = await bench.post_job(await bench.login(), bob)
    assert answer.status_code == 400
    assert "logged in" in answer.json()["details"]


@pytest.mark.parametrize(("ago", "word"), [(301, "old"), (-120, "future")])
async def test_an_old_or_future_signature_is_400(bench: Any, ago: float, word: str) -> None:
    await bench.validator()
    token, body = await bench.login(), bench.body()
    answer = await bench.http.post(URL, json=body, headers={**token, **bench.sign(body, ago_s=ago)})
    assert answer.status_code == 400
    assert word in answer.json()["details"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"executor_class": "no-such-class"}, "executor_class"),
        ({"docker_image": " alpine"}, "docker_image"),
        ({"docker_image": "a" * 256}, "docker_image"),
        ({"job_namespace": "n" * 101}, "job_namespace"),
        ({"tag": "n" * 256}, "tag"),
        ({"args": None}, "args"),
        ({"args": [1]}, "args"),
        ({"env": {"A": 1}}, "env"),
        ({"env": {"A=B": "1"}}, "env"),
        ({"download_time_limit": "5"}, "download_time_limit"),
        ({"download_time_limit": -1}, "download_time_limit"),
        ({"upload_time_limit": None}, "upload_time_limit"),
        ({"execution_time_limit": True}, "execution_time_limit"),
        ({"volumes": None}, "volumes"),
        ({"volumes": [{"volume_type": "multi_volume", "volumes": []}]}, "volumes"),
        ({"volumes": [{**FILE, "relative_path": "../up"}]}, "volumes"),
        ({"uploads": [{**PUT, "relative_path": "/abs"}]}, "uploads"),
        ({"uploads": "x"}, "uploads"),
        ({"streaming_details": "x"}, "streaming_details"),
        ({"artifacts_dir": "relative"}, "artifacts_dir"),
        ({"target_validator_hotkey": ""}, "target_validator_hotkey"),
    ],
)
async def test_a_bad_field_is_400_by_name(bench: Any, changes: dict[str, Any], field: str) -> None:
    await bench.validator()
    token, headers = await bench.login(), bench.sign(bench.body())
    answer = await bench.http.post(URL, json=bench.body(**changes), headers={**token, **headers})
    assert answer.status_code == 400
    assert list(answer.json()) == [field]


async def test_a_missing_field_is_400(bench: Any) -> None:
    token, body = await bench.login(), bench.body()
    headers = bench.sign(body)
    del body["execution_time_limit"], body["upload_time_limit"]
    answer = await bench.http.post(URL, json=body, headers={**token, **headers})
    assert answer.status_code == 400
    assert answer.json() == {
        "execution_time_limit": ["This field is required."],
        "upload_time_limit": ["This field is required."],
    }


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'{"docker_image": "\\ud800"}']
)
async def test_a_malformed_body_is_400(bench: Any, content: bytes) -> None:
    token, headers = await bench.login(), bench.sign(bench.body())
    answer = await bench.http.post(URL, content=content, headers={**token, **headers})
    assert answer.status_code == 400
    assert answer.json()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"volumes": [{"relative_path": "a", "url": "http://x", "volume_type": "single_file"}]}, "volumes"),
        ({"volumes": [{"volume_type": "inline", "contents": "eA=="}]}, "volumes"),
        ({"volumes": [{**FILE, "more": 1}]}, "volumes"),
        ({"uploads": [{k: v for k, v in PUT.items() if k != "signed_headers"}]}, "uploads"),
        ({"use_gpu": "off"}, "use_gpu"),
    ],
)
async def test_what_the_validator_would_refuse_is_400_at_once(
    bench: Any, changes: dict[str, Any], field: str
) -> None:
    await bench.validator()
    answer = await bench.post_job(await bench.login(), **changes)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert "signature" in answer.json()[field][0]


async def test_an_unsent_executor_class_is_refused_not_guessed(bench: Any) -> None:
    await bench.validator()
    token, body = await bench.login(), bench.body()
    del body["executor_class"]
    answer = await bench.http.post(URL, json=body, headers={**token, **bench.sign(body)})
    assert (answer.status_code, list(answer.json())) == (400, ["executor_class"])


async def test_an_unknown_or_absent_validator_is_400(bench: Any, bob: Any, other_key: Any) -> None:
    await bench.validator(other_key)
    token = await bench.login()
    for target in (bob.ss58_address, "nobody", bench.body()["target_validator_hotkey"]):
        answer = await bench.post_job(token, target_validator_hotkey=target)
        assert (answer.status_code, answer.json()) == (400, ["Could not select Validator"])


async def test_a_validator_without_heartbeat_is_not_selected(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    bench.clock.ahead += 181
    answer = await bench.post_job(token)
    assert (answer.status_code, answer.json()) == (400, ["Could not select Validator"])
    await peer.send({"message_type": "V0Heartbeat"})
    await peer.ask("not json")  # both frames are handled by now
    assert (await bench.post_job(token)).status_code == 201


def inline(size: int) -> dict[str, Any]:
    return {"volume_type": "inline", "contents": "A" * size, "relative_path": None}


async def test_a_frame_that_the_validator_cannot_take_is_400_g20(bench: Any, big_frames: dict[str, str]) -> None:
    old, token = await bench.validator(), await bench.login()
    refused = await bench.post_job(token, volumes=[inline(1024 * 1024)])
    assert refused.status_code == 400
    assert "1048576" in refused.json()["non_field_errors"][0]
    await old.hang_up()
    new = await bench.validator(headers=big_frames)
    assert (await bench.post_job(token, volumes=[inline(1024 * 1024)])).status_code == 201
    assert len(json.dumps(await new.receive())) > 1024 * 1024


async def test_a_body_over_the_limit_is_413(bench: Any) -> None:
    await bench.validator()
    answer = await bench.post_job(await bench.login(), volumes=[inline(3_000_000)])
    assert answer.status_code == 413
    assert "detail" in answer.json()


async def test_env_tokens_and_urls_are_never_logged(bench: Any, caplog: Any, capsys: Any) -> None:
    await bench.validator()
    token = await bench.login()
    await bench.post_job(token, env={"SECRET": "hunter2"}, uploads=[PUT])
    printed = capsys.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert "hunter2" not in text
        assert "sig=1" not in text
        assert token["Authorization"][10:] not in text
