"""Cheat reports and feedback: sections 2.8 and 2.9, gaps G1, G2, G17."""

import json
import uuid
from typing import Any

import pytest

from compute_horde.protocol.facilitator_validator import V0JobCheated
from compute_horde.protocol.signing import canonical_text, verify_payload

URL = "/api/v1/cheated-job/"
ELSEWHERE = "11111111-1111-4111-8111-111111111111"


async def two_jobs(bench: Any, peer: Any, token: dict[str, str]) -> dict[str, Any]:
    plain = (await bench.post_job(token)).json()["uuid"]
    trusted = (await bench.post_job(token, on_trusted_miner=True)).json()["uuid"]
    for frame in [await peer.receive() for _ in range(2)]:
        await peer.status(frame["uuid"], "received")
    return {"job_uuid": plain, "trusted_job_uuid": trusted, "details": None}


async def report(bench: Any, token: dict[str, str], body: dict[str, Any]) -> Any:
    return await bench.http.post(URL, json=body, headers={**token, **bench.sign_whole(body)})


async def test_a_report_reaches_the_validator_with_its_details_g2(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = await two_jobs(bench, peer, token)
    answer = await report(bench, token, body)
    assert (answer.status_code, answer.json()) == (201, {"message": "Job reported as cheated"})
    frame = await peer.receive()
    assert frame["message_type"] == "V0JobCheated"
    assert "details" in frame
    assert frame["details"] is None


async def test_the_signature_can_be_verified_from_the_frame_g1(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = {**await two_jobs(bench, peer, token), "details": {"why": ["héllo", 1]}}
    await report(bench, token, body)
    message = V0JobCheated.model_validate(await peer.receive())
    text = canonical_text(message.signed_payload())
    assert verify_payload(message.signature, text, bench.facilitator.verifier)


@pytest.mark.parametrize("details", ["\ud800", {"\ud800": 1}])
async def test_details_that_no_frame_can_carry_are_refused(bench: Any, details: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = {**await two_jobs(bench, peer, token), "details": details}
    headers = {**token, **bench.sign_whole(body), "Content-Type": "application/json"}
    answer = await bench.http.post(URL, content=json.dumps(body), headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["details"])


async def test_a_number_out_of_range_is_refused(bench: Any) -> None:
    headers = {**await bench.login(), "Content-Type": "application/json"}
    answer = await bench.http.post(URL, content='{"details": 1e999}', headers=headers)
    assert answer.status_code == 400
    assert "out of range" in answer.json()["detail"]


async def test_a_report_waits_for_the_validator(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = await two_jobs(bench, peer, token)
    await peer.hang_up()
    assert (await report(bench, token, body)).status_code == 201
    again = await bench.validator()
    assert (await again.receive())["job_uuid"] == body["job_uuid"]
    await again.ask("x")
    await again.hang_up()
    third = await bench.validator()
    assert (await third.status("x", "received"))["errors"][0]["type"] == "job.not_found"  # not delivered twice


async def test_a_second_report_is_400(bench: Any) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = await two_jobs(bench, peer, token)
    await report(bench, token, body)
    answer = await report(bench, token, body)
    assert (answer.status_code, answer.json()) == (400, {"error": "Cheat report already exists for this job"})


@pytest.mark.parametrize("case", ["unknown", "foreign", "trusted"])
async def test_a_job_that_cannot_be_reported_is_404(bench: Any, bob: Any, case: str) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = await two_jobs(bench, peer, token)
    key = None
    if case == "unknown":
        body["job_uuid"] = ELSEWHERE
    elif case == "trusted":
        body["job_uuid"] = body["trusted_job_uuid"]
    else:
        token, key = await bench.login(bob), bob
    headers = bench.sign_whole(body, key) if key else bench.sign_whole(body)
    answer = await bench.http.post(URL, json=body, headers={**token, **headers})
    assert (answer.status_code, answer.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize("case", ["unknown", "untrusted"])
async def test_a_trusted_job_that_is_none_is_404(bench: Any, case: str) -> None:
    peer, token = await bench.validator(), await bench.login()
    body = await two_jobs(bench, peer, token)
    body["trusted_job_uuid"] = ELSEWHERE if case == "unknown" else body["job_uuid"]
    answer = await report(bench, token, body)
    assert (answer.status_code, answer.json()) == (404, {"error": "Trusted job not found"})


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"job_uuid": ELSEWHERE}, {"trusted_job_uuid": ["This field is required."]}),
        ({"job_uuid": "x", "trusted_job_uuid": ELSEWHERE}, {"job_uuid": ["Must be a valid UUID."]}),
    ],
)
async def test_a_bad_report_field_is_400(bench: Any, body: dict[str, Any], errors: dict[str, Any]) -> None:
    answer = await report(bench, await bench.login(), body)
    assert (answer.status_code, answer.json()) == (400, errors)


@pytest.mark.parametrize("case", ["unsigned", "other body", "extra key", "no details", "old", "other scope"])
async def test_a_badly_signed_report_is_400(bench: Any, case: str) -> None:
    token = await bench.login()
    body: dict[str, Any] = {"job_uuid": ELSEWHERE, "trusted_job_uuid": str(uuid.uuid4()), "details": None}
    if case == "extra key":
        body["more"] = 1
    if case == "no details":
        del body["details"]
    headers = bench.sign_whole(body, ago_s=400 if case == "old" else 0)
    if case == "unsigned":
        headers = {}
    if case == "other scope":
        headers["X-CH-Signature-Scope"] = "SignedFields"
    if case == "other body":
        body["details"] = 1
    answer = await bench.http.post(URL, json=body, headers={**token, **headers})
    assert answer.status_code == 400
    found = "Signature not found" if case == "unsigned" else "Invalid signature provided"
    assert answer.json()["error"] == found


async def feedback_url(bench: Any, token: dict[str, str]) -> str:
    await bench.validator()
    return f"/api/v1/jobs/{(await bench.post_job(token)).json()['uuid']}/feedback/"


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_feedback_is_given_once_and_read_g17(bench: Any, bob: Any, method: str) -> None:
    token = await bench.login()
    url = await feedback_url(bench, token)
    assert (await bench.http.get(url, headers=token)).status_code == 404
    body = {"result_correctness": 0.5, "expected_duration": 3.0}
    headers = {**token, **bench.sign_whole(body)}
    answer = await bench.http.request(method, url, json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (201, body)
    assert (await bench.http.get(url, headers=token)).json() == body
    again = await bench.http.request(method, url, json=body, headers=headers)
    assert (again.status_code, again.json()) == (409, {"detail": "Feedback already exists"})
    assert (await bench.http.get(url, headers=await bench.login(bob))).status_code == 404


async def test_feedback_needs_a_signature(bench: Any) -> None:
    token = await bench.login()
    answer = await bench.http.put(await feedback_url(bench, token), json={"result_correctness": 1}, headers=token)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "Signature not found",
        "details": "Request signature not found, but is required",
    }


@pytest.mark.parametrize(
    "body", [{}, {"result_correctness": 2}, {"result_correctness": 1, "expected_duration": -1}]
)
async def test_bad_feedback_is_400(bench: Any, body: dict[str, Any]) -> None:
    token = await bench.login()
    url = await feedback_url(bench, token)
    answer = await bench.http.put(url, json=body, headers={**token, **bench.sign_whole(body)})
    assert answer.status_code == 400
