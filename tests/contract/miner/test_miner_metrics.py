"""What an operator sees of a miner: real jobs and refusals, counted once each; health."""

import asyncio
import uuid
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.miner import retries
from compute_horde.miner.store import JobStore
from compute_horde.miner.testing import (
    ALICE,
    BOB,
    LLM,
    MINER,
    TEST,
    Horde,
    finished,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.control import V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.enums import Participant
from compute_horde.protocol.validator_miner import (
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0MachineSpecsRequest,
    V0VolumesReadyRequest,
    ValidatorAuthForMiner,
)
from compute_horde.storage.errors import DatabaseUnavailable

REFUSED = 'events_refused_total{reason="%s"}'


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


def stage(name: str) -> str:
    return f'stage_duration_seconds_count{{executor_class="always_on.test",stage="{name}"}}'


def ended(state: str, fault: str) -> str:
    return f'jobs_ended_total{{fault="{fault}",state="{state}"}}'


def places(state: str) -> str:
    return f'executors{{executor_class="always_on.test",state="{state}"}}'


def refusals(figures: dict[str, float]) -> dict[str, float]:
    return {name: count for name, count in figures.items() if name.startswith("events_refused")}


async def test_a_job_is_counted_stage_by_stage(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, executor_exit_limit=60) as horde:
        validator, executor = await horde.begun(job)
        at_work = await horde.figures()
        assert (at_work['jobs{state="executor_ready"}'], at_work["validators"]) == (1, 1)
        assert (at_work[places("free")], at_work[places("reserved")]) == (1, 1)
        assert at_work['offers_total{outcome="accepted"}'] == 1
        assert at_work["outbox_messages"] == 2  # accepted, ready
        assert at_work["database_bytes"] > 10_000
        await executor.say(V0VolumesReadyRequest(job_uuid=job), V0ExecutionDoneRequest(job_uuid=job))
        await executor.say(finished(job))
        await validator.expect("V0VolumesReadyRequest", "V0ExecutionDoneRequest", "V0JobFinishedRequest")
        figures = await horde.figures()
        names = ("executor_startup", "volume_download", "execution", "result_upload")
        assert [figures[stage(name)] for name in names] == [1] * 4
        assert figures[ended("completed", "none")] == 1
        assert figures['job_duration_seconds_count{state="completed"}'] == 1
        assert (figures[places("free")], figures[places("tidying")]) == (2, 1)
        assert not [name for name in figures if name.startswith(("jobs{", "events_refused", "reconnects"))]
        await validator.say(finished_receipt(job))
        await until(lambda: job not in horde.miner._desk.jobs)
        assert "outbox_messages" not in await horde.figures()


@pytest.mark.parametrize(("code", "fault"), [("nonzero_exit", "user"), ("image_pull_failed", "nobody")])
async def test_failures_are_counted_by_fault(tmp_path: Path, job: str, code: str, fault: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        last = to_wire(problem(code, "it failed"), job, reported_by=Participant.EXECUTOR)
        await executor.say(last)
        await validator.expect(last.message_type)
        state = "failed" if fault == "user" else "horde_failed"
        assert (await horde.figures())[ended(state, fault)] == 1


async def test_a_failure_that_names_no_fault_is_nobodys(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        last = to_wire(problem("nonzero_exit", "it failed"), job, reported_by=Participant.EXECUTOR)
        await executor.say(last.model_copy(update={"context": None}))
        await validator.expect("V0JobFailedRequest")
        assert (await horde.figures())[ended("failed", "nobody")] == 1


async def test_offers(tmp_path: Path) -> None:
    async with open_horde(tmp_path, executors={TEST: 1}) as horde:
        validator = await horde.validator()
        for message in (
            initial(first := str(uuid.uuid4())),
            initial(str(uuid.uuid4())),  # busy
            initial(str(uuid.uuid4()), executor_class=LLM),  # not offered
            initial(str(uuid.uuid4()), receipt_signature="0x00"),
            initial(first),  # a peer made sure
        ):
            await validator.say(message)
            await validator.hear()
        figures = await horde.figures()
        assert {name: count for name, count in figures.items() if name.startswith("offers")} == {
            'offers_total{outcome="accepted"}': 1,
            'offers_total{outcome="busy"}': 1,
            'offers_total{outcome="declined"}': 2,
        }
        assert refusals(figures) == {REFUSED % "signature": 1, REFUSED % "repeated": 1}


async def test_refused_messages_of_validators(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, _ = await horde.begun(job)
        other = await horde.validator(BOB)
        good = request(job)
        unsigned = good.model_copy(update={"docker_image": "another"})
        for peer, message in (
            (validator, "no json"),
            (validator, initial(job).model_copy(update={"job_uuid": "NO-UUID"})),
            (validator, request(str(uuid.uuid4()))),
            (validator, unsigned),
            (validator, request(job, executor_class=LLM)),
            (other, request(job, BOB)),
            (validator, finished_receipt(job, signer=BOB)),
        ):
            await peer.say(message)
            await peer.expect("GenericError")
        assert refusals(await horde.figures()) == {
            REFUSED % "malformed": 3,
            REFUSED % "unknown_job": 1,
            REFUSED % "signature": 2,
            REFUSED % "not_ours": 1,
        }


async def test_refused_validators(tmp_path: Path) -> None:
    async with open_horde(tmp_path, auth_limit=0.05) as horde:
        strangers: list[tuple[Any, ValidatorAuthForMiner | None]] = [
            (MINER, None),  # not on the chain
            (ALICE, None),  # says nothing
            (ALICE, horde.auth(timestamp=1)),
            (ALICE, horde.auth(BOB)),
            (ALICE, horde.auth().model_copy(update={"signature": "0x00"})),
        ]
        for key, auth in strangers:
            peer = await horde.validator(key, admitted=False)
            await peer.say(*([auth] if auth else []))
            await peer.expect("UnauthorizedError", "GenericError")
        assert refusals(await horde.figures()) == {
            REFUSED % "forbidden": 2,
            REFUSED % "login": 1,
            REFUSED % "stale": 1,
            REFUSED % "signature": 1,
        }


async def test_refused_messages_of_executors(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        executor = await horde.executor()
        await executor.expect("V0InitialJobRequest")
        await executor.say("no json")
        await executor.expect("GenericError")
        await executor.say(V0VolumesReadyRequest(job_uuid=str(uuid.uuid4())))
        await executor.expect("GenericError")
        await executor.say(V0ExecutionDoneRequest(job_uuid=job))  # ahead of its job
        ready = V0ExecutorReadyRequest(job_uuid=job)
        specs = V0MachineSpecsRequest(job_uuid=job, specs={"specs": {}})
        await executor.say(ready, ready, specs, specs)
        await validator.expect("V0ExecutorReadyRequest", "V0MachineSpecsRequest")
        stranger = await horde.executor(token="unknown")
        await stranger.expect("GenericError")
        await until(lambda: _count(horde, "repeated") == 2)
        assert refusals(await horde.figures()) == {
            REFUSED % "malformed": 1,
            REFUSED % "not_ours": 1,
            REFUSED % "illegal_transition": 1,
            REFUSED % "repeated": 2,
            REFUSED % "unknown_job": 1,
        }


def _count(horde: Horde, reason: str) -> float:
    found = horde.miner.metrics.registry.get_sample_value(
        "compute_horde_miner_events_refused_total", {"reason": reason}
    )
    return found or 0


async def test_an_answer_about_output_that_is_too_large(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await validator.say(V0JobLogsRequest(job_uuid=job, request_id="r", position=0))
        await executor.expect("V0JobLogsRequest")
        text = V0JobLogsResponse(job_uuid=job, request_id="r", position=1, state="more").to_frame()
        await executor.say(text.replace('"r"', f'"r", "filler": "{"x" * 2**20}"'))
        await until(lambda: _count(horde, "too_large") == 1)


async def test_a_report_that_the_miner_was_quicker_than(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_horde(tmp_path) as horde:
        _, executor = await horde.begun(job)

        async def moved_meanwhile(*_: Any) -> bool:
            return False

        with monkeypatch.context() as patch:
            patch.setattr(JobStore, "advance", moved_meanwhile)
            await executor.say(V0VolumesReadyRequest(job_uuid=job))
            await until(lambda: _count(horde, "stale_claim") == 1)


async def test_executors_that_come_back_are_replaced_and_lost(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        await executor.channel.close(1006)
        again = await horde.executor()
        await again.expect("V0JobRequest", "V0InitialJobRequest")
        assert (await horde.figures())['reconnects_total{peer="executor"}'] == 1
        (await horde.launched()).end(1)
        await again.channel.close(1006)
        await horde.launched(2)
        horde.launcher.doomed = 3
        horde.launcher.launched[-1].end(1)
        await validator.expect("V0HordeFailedRequest")
        figures = await horde.figures()
        assert (figures["executors_relaunched_total"], figures["executors_lost_total"]) == (3, 1)
        assert figures[ended("horde_failed", "miner")] == 1


async def test_jobs_picked_up_after_a_restart(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        await horde.begun(job)
        await horde.crash()
    async with open_horde(tmp_path) as horde:
        figures = await horde.figures()
        assert (figures["leases_taken_over_total"], figures["executors_relaunched_total"]) == (1, 1)
        assert figures['jobs{state="executor_ready"}'] == 1
        executor = await horde.executor()
        await executor.expect("V0JobRequest", "V0InitialJobRequest")
        await executor.say(V0VolumesReadyRequest(job_uuid=job))
        await until(lambda: horde.miner._desk.jobs[job].row.state.value == "volumes_ready")
        figures = await horde.figures()
        assert figures['reconnects_total{peer="executor"}'] == 1
        spent = figures['stage_duration_seconds_sum{executor_class="always_on.test",stage="volume_download"}']
        assert 0 < spent < 60  # from before the restart on


async def test_a_validator_that_was_lost_and_one_that_was_through(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        for code in (1000, 1006):
            peer = await horde.validator()
            await peer.channel.close(code)
            await until(lambda: horde.miner._outbox.validators == 0)
        assert 'reconnects_total{peer="validator"}' not in await horde.figures()
        await horde.validator()
        await horde.validator()
        assert (await horde.figures())['reconnects_total{peer="validator"}'] == 1


async def test_the_database_away_and_back(tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> NoReturn:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.005)
    async with open_horde(tmp_path) as horde:
        validator, executor = await horde.begun(job)
        database = horde.miner._database
        with monkeypatch.context() as patch:
            patch.setattr(database, "begin", away)
            patch.setattr(database, "read", away)
            await executor.say(V0VolumesReadyRequest(job_uuid=job))
            await validator.silence()
            report = await horde.miner.health.ready()
            blind = await horde.figures()
        await validator.expect("V0VolumesReadyRequest")
        assert (report.http_status, report.status) == (503, "not ready")
        assert report.checks["database"].why == "DatabaseUnavailable"
        assert blind['jobs{state="executor_ready"}'] == 1  # known without it
        assert "outbox_messages" not in blind
        assert (await horde.figures())['reconnects_total{peer="database"}'] == 1


async def test_records_name_their_job_and_peer(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path) as horde:
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as records:
            validator, executor = await horde.begun(job)
            await executor.channel.close(1006)
            (await horde.launched()).end(1)
            await horde.launched(2)
            await validator.say(request(str(uuid.uuid4())))
            await validator.expect("GenericError")
        named = {record["event"]: (record.get("job"), record.get("peer")) for record in records}
    assert named["job accepted"] == (job, ALICE.ss58_address)
    assert named["executor away"] == (job, "memory:left")
    assert named["an executor ended before its job did"][0] == job
    assert named["validator's message refused"][1] == ALICE.ss58_address


async def test_it_lives_while_all_its_parts_do(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        assert (await horde.miner.health.live()).ok
        report = await horde.miner.health.ready()
        assert report.checks["started"].why == "it starts or stops"  # it does not listen
        task = horde.miner._housekeeping
        assert task is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await horde.miner.health.live()).http_status == 503


async def test_a_trusted_miners_outbox(tmp_path: Path, job: str) -> None:
    async with open_horde(tmp_path, trusted_for=ALICE.ss58_address) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        assert (await horde.figures())["outbox_messages"] == 1
