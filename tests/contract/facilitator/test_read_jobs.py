"""Listing and retrieving jobs: sections 2.6 and 2.7, gap G18."""

from typing import Any

import pytest

RESULT = {
    "miner_response": {
        "docker_process_stdout": "out",
        "docker_process_stderr": "err",
        "artifacts": {"/artifacts/a": "QQ=="},
        "upload_results": {"out.txt": '{"headers":{},"body":""}'},
    }
}
FAILURE = {
    "job_failure_details": {
        "reason": "nonzero_return_code",
        "stage": "execution",
        "message": "exit code 3",
        "docker_process_exit_status": 3,
        "docker_process_stdout": "partial",
        "docker_process_stderr": None,
    }
}
SERVER = {"streaming_server_cert": "PEM", "streaming_server_address": "10.0.0.1", "streaming_server_port": 8000}


async def started(bench: Any, **changes: Any) -> tuple[Any, dict[str, str], str]:
    peer, token = await bench.validator(), await bench.login()
    uuid = (await bench.post_job(token, **changes)).json()["uuid"]
    await peer.receive()
    return peer, token, uuid


async def test_a_completed_job_shows_its_result(bench: Any) -> None:
    peer, token, uuid = await started(bench)
    for status in ("received", "accepted", "executor_ready", "volumes_ready", "execution_done"):
        assert await peer.status(uuid, status) == {"status": "success", "errors": []}
    await peer.status(uuid, "completed", RESULT)
    job = await bench.job(uuid, token)
    assert (job["status"], job["stdout"], job["stderr"]) == ("Completed", "out", "err")
    assert job["artifacts"] == RESULT["miner_response"]["artifacts"]
    assert job["upload_results"] == RESULT["miner_response"]["upload_results"]
    assert [entry["status"] for entry in job["status_history"]] == [
        "sent",
        "received",
        "accepted",
        "executor_ready",
        "volumes_ready",
        "execution_done",
        "completed",
    ]
    assert job["status_history"][-1]["metadata"] == RESULT
    assert job["last_update"] == job["status_history"][-1]["created_at"]


@pytest.mark.parametrize(
    ("status", "label"),
    [
        ("received", "Received"),
        ("accepted", "Accepted"),
        ("executor_ready", "Executor Ready"),
        ("volumes_ready", "Volumes Ready"),
        ("execution_done", "Execution Done"),
        ("rejected", "Rejected"),
        ("failed", "Failed"),
        ("horde_failed", "Failed"),
    ],
)
async def test_each_status_has_its_legacy_label(bench: Any, status: str, label: str) -> None:
    peer, token, uuid = await started(bench)
    await peer.status(uuid, status)
    assert (await bench.job(uuid, token))["status"] == label


async def test_a_failed_job_keeps_its_details_and_shows_no_output(bench: Any) -> None:
    peer, token, uuid = await started(bench)
    await peer.status(uuid, "failed", FAILURE)
    job = await bench.job(uuid, token)
    assert (job["status"], job["stdout"], job["stderr"], job["artifacts"]) == ("Failed", "", "", {})
    details = job["status_history"][-1]["metadata"]["job_failure_details"]
    assert details == {k: v for k, v in FAILURE["job_failure_details"].items() if v is not None}


async def test_a_streaming_job_keeps_its_servers_address(bench: Any) -> None:
    peer, token, uuid = await started(bench, streaming_details={"public_key": "CLIENT"})
    before = await bench.job(uuid, token)
    assert (before["streaming_server_address"], before["streaming_server_port"]) == ("", 0)
    await peer.status(uuid, "streaming_ready", {"streaming_details": SERVER})
    await peer.status(uuid, "execution_done")
    job = await bench.job(uuid, token)
    assert {name: job[name] for name in SERVER} == SERVER
    assert job["streaming_client_cert"] == "CLIENT"


async def test_other_users_jobs_are_not_found(bench: Any, bob: Any) -> None:
    _, _, uuid = await started(bench)
    theirs = await bench.login(bob)
    answer = await bench.http.get(f"/api/v1/jobs/{uuid}/", headers=theirs)
    assert (answer.status_code, answer.json()) == (404, {"detail": "No Job matches the given query."})
    assert (await bench.http.get("/api/v1/jobs/", headers=theirs)).json()["count"] == 0


async def test_a_path_that_is_no_uuid_is_not_found(bench: Any) -> None:
    answer = await bench.http.get("/api/v1/jobs/nonsense/", headers=await bench.login())
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


async def test_pages_are_newest_first_and_complete_g18(bench: Any) -> None:
    await bench.validator()
    token = await bench.login()
    made = [(await bench.post_job(token, tag=f"t{n % 2}")).json()["uuid"] for n in range(7)]
    seen, url = [], "/api/v1/jobs/?page_size=3"
    while url:
        page = (await bench.http.get(url, headers=token)).json()
        assert page["count"] == 7
        seen += [job["uuid"] for job in page["results"]]
        url = page["next"]
        assert url is None or url.startswith("http://facilitator/api/v1/jobs/?page_size=3&page=")
    assert seen == made[::-1]
    assert page["previous"] == "http://facilitator/api/v1/jobs/?page_size=3&page=2"
    tagged = (await bench.http.get("/api/v1/jobs/?tag=t1", headers=token)).json()
    assert [job["uuid"] for job in tagged["results"]] == made[5::-2]
    some = (await bench.http.get(f"/api/v1/jobs/?uuid={made[0]}&uuid={made[3]}", headers=token)).json()
    assert [job["uuid"] for job in some["results"]] == [made[3], made[0]]


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("page=2", 404, {"detail": "Invalid page."}),
        ("page=0", 404, {"detail": "Invalid page."}),
        ("page=x", 404, {"detail": "Invalid page."}),
        ("page=99999999999999999999999", 404, {"detail": "Invalid page."}),
        ("page_size=x", 400, {"page_size": ["A valid integer is required."]}),
        ("uuid=nonsense", 400, {"uuid": ["Must be a valid UUID."]}),
    ],
)
async def test_bad_list_parameters(bench: Any, query: str, status: int, body: Any) -> None:
    answer = await bench.http.get(f"/api/v1/jobs/?{query}", headers=await bench.login())
    assert (answer.status_code, answer.json()) == (status, body)


async def test_an_empty_first_page_is_a_page(bench: Any) -> None:
    answer = await bench.http.get("/api/v1/jobs/?page_size=1000", headers=await bench.login())
    assert answer.json() == {"count": 0, "next": None, "previous": None, "results": []}


async def test_paths_with_a_doubled_prefix_are_served(bench: Any) -> None:
    assert (await bench.http.get("/api/v1/api/v1/jobs/", headers=await bench.login())).status_code == 200


async def test_other_methods_are_405_with_allow(bench: Any) -> None:
    answer = await bench.http.delete("/api/v1/jobs/")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert (await bench.http.get("/nowhere")).json() == {"detail": "Not found."}


async def test_health(bench: Any) -> None:
    assert (await bench.http.get("/health/live")).json()["status"] == "ok"
    assert (await bench.http.get("/health/ready")).json()["status"] == "ok"
