"""A validator between a scripted facilitator and a scripted miner: the sequence of section 6.5 and its faults."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compute_horde.chain.keys import throwaway_hotkey, verify
from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import FixedChain
from compute_horde.lifecycle.failures import problem, to_wire
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES, TRUSTED_MINER_HOTKEY
from compute_horde.protocol.enums import (
    FailureReason,
    Fault,
    HordeFailureReason,
    Participant,
    RejectionReason,
    Stage,
)
from compute_horde.protocol.facilitator_validator import Response, V0JobCheated, V0JobStatusUpdate
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.signing import SignatureScope, canonical_text, sign_payload, verify_hex
from compute_horde.storage.database import Database
from compute_horde.transport.memory import MemoryDialer
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Store
from compute_horde.validator.testing import (
    MinerConnection,
    Script,
    ScriptedFacilitator,
    ScriptedMiner,
    job_request,
    no_pauses,
    running,
)

JOB = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
USER, MINER, VALIDATOR, STRANGER = (throwaway_hotkey(f"//{n}") for n in ("Alice", "Bob", "Charlie", "Eve"))
WHOLE = ["received", "accepted", "executor_ready", "volumes_ready", "execution_done", "completed"]
SHORT = {
    "leeway": 0.05,
    "reservation_limit": 0.05,
    "executor_startup_limit": -2.95,  # the test class grants 3 s by itself
    "miner_connect_limit": 0.05,
}


@dataclass
class World:
    """A facilitator, miners by host name, and validators that share one database file."""

    folder: Path
    dialer: MemoryDialer = field(default_factory=MemoryDialer)
    chain: FixedChain = field(
        default_factory=lambda: FixedChain(Directory(signers=frozenset({USER.ss58_address})))
    )
    limits: dict[str, Any] = field(default_factory=lambda: {"miner_connect_limit": 2})

    def __post_init__(self) -> None:
        self.facilitator = ScriptedFacilitator(self.dialer, "ws://facilitator/")
        self.url = f"sqlite+aiosqlite:///{self.folder}/validator.db"

    def miner(self, *scripts: Script, host: str = "miner", hotkey: str = MINER.ss58_address) -> ScriptedMiner:
        """A miner that is on the chain, unless it is the trusted one."""
        if hotkey != TRUSTED_MINER_HOTKEY:
            known = (*self.chain.current.miners, MinerEndpoint(hotkey=hotkey, address=host, port=8000))
            self.chain.current = self.chain.current.model_copy(update={"miners": known})
        return ScriptedMiner(self.dialer, f"ws://{host}:8000/", *scripts)

    def validator(self, **changes: Any) -> ValidatorService:
        settings = ValidatorSettings(facilitator_url="ws://facilitator/", database_url=self.url)
        settings = settings.model_copy(update=self.limits | changes)  # past validation: limits may be tiny
        return ValidatorService(settings, VALIDATOR, self.chain, dialer=self.dialer, pauses=no_pauses)

    async def run(self, *, status: str, **changes: Any) -> V0JobStatusUpdate:
        """One job, to this status."""
        validator = self.validator()
        async with running(validator):
            await validator.connected.wait()
            await self.facilitator.push(job_request(JOB, USER, **changes))
            update = await self.facilitator.wait_for(JOB, status)
            await asyncio.sleep(0.02)  # what comes after the end, if anything
        return update

    async def incidents(self) -> list[tuple[str, str]]:
        database = Database(self.url)
        try:
            return [(i.miner_hotkey, i.code) for i in await Store(database).incidents_since(0)]
        finally:
            await database.close()

    async def receipts(self, uuid: str = JOB) -> list[str]:
        database = Database(self.url)
        try:
            return sorted(receipt.kind for receipt in await Store(database).receipts_of(uuid))
        finally:
            await database.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def accept(miner: MinerConnection) -> str:
    await miner.expect(vm.ValidatorAuthForMiner)
    await miner.manifest()
    job = str((await miner.expect(vm.V0InitialJobRequest)).job_uuid)
    await miner.send(vm.V0AcceptJobRequest(job_uuid=job))
    await miner.expect(vm.V0JobAcceptedReceiptRequest)
    return job


async def make_ready(miner: MinerConnection) -> str:
    job = await accept(miner)
    await miner.send(vm.V0ExecutorReadyRequest(job_uuid=job))
    await miner.expect(vm.V0JobRequest)
    return job


def result(job: str) -> vm.V0JobFinishedRequest:
    return vm.V0JobFinishedRequest(
        job_uuid=job,
        docker_process_stdout="hi\n",
        docker_process_stderr="",
        artifacts={"/artifacts/a": "YQ=="},
        upload_results={},
        exit_status=0,
    )


async def finish(miner: MinerConnection, job: str) -> None:
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job), result(job))
    await miner.expect(vm.V0JobFinishedReceiptRequest)


async def whole_job(miner: MinerConnection) -> None:
    await finish(miner, await make_ready(miner))


async def silence(_miner: MinerConnection) -> None:
    await asyncio.sleep(0)


def ending(message: vm.Message, after: Callable[[MinerConnection], Any] = make_ready) -> Script:
    """A script whose job ends with this message."""

    async def script(miner: MinerConnection) -> None:
        await after(miner)
        await miner.send(message)
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    return script


# the whole sequence


async def test_a_job_runs_through_every_step_in_order(world: World) -> None:
    miner = world.miner(whole_job)
    volume = {"volume_type": "inline", "contents": "eA==", "relative_path": None}
    limits = {"download_time_limit": 5, "execution_time_limit": 10, "upload_time_limit": 7}
    done = await world.run(status="completed", volume=volume, **limits)

    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE
    assert [type(message).__name__ for message in miner.seen] == [
        "ValidatorAuthForMiner",
        "V0InitialJobRequest",
        "V0JobAcceptedReceiptRequest",
        "V0JobRequest",
        "V0JobFinishedReceiptRequest",
    ]
    auth, initial, accepted, request, finished = miner.seen
    assert isinstance(auth, vm.ValidatorAuthForMiner)
    assert auth.is_signed(verify)
    assert isinstance(initial, vm.V0InitialJobRequest)
    assert isinstance(request, vm.V0JobRequest)
    assert isinstance(accepted, vm.V0JobAcceptedReceiptRequest)
    assert isinstance(finished, vm.V0JobFinishedReceiptRequest)
    assert miner.urls == [f"ws://miner:8000/v0.1/validator_interface/{VALIDATOR.ss58_address}"]
    assert vm.frame_is_signed(initial.to_frame(), VALIDATOR.ss58_address, verify)
    assert vm.frame_is_signed(request.to_frame(), VALIDATOR.ss58_address, verify)
    assert initial.volume is not None
    assert request.volume is None
    assert request.docker_run_options_preset.value == "none"
    assert (initial.job_started_receipt_payload.ttl, accepted.payload.ttl) == (7, 3 + 300 + 5 + 5 + 10 + 7)
    assert (finished.payload.score_str, finished.payload.block_numbers) == ("22.000000", [])
    for payload, signature in (
        (initial.job_started_receipt_payload, initial.job_started_receipt_signature),
        (accepted.payload, accepted.signature),
        (finished.payload, finished.signature),
    ):
        assert verify_hex(verify, VALIDATOR.ss58_address, payload.signed_bytes(), signature)
    assert done.metadata is not None
    assert done.metadata.miner_response is not None
    assert done.metadata.miner_response.artifacts == {"/artifacts/a": "YQ=="}
    assert done.metadata.miner_response.exit_status == 0
    assert await world.receipts() == ["JobAcceptedReceipt", "JobFinishedReceipt", "JobStartedReceipt"]
    assert await world.incidents() == []


async def test_two_jobs_run_at_once(world: World) -> None:
    meeting = asyncio.Barrier(2)

    async def together(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await meeting.wait()
        await finish(miner, job)

    world.miner(together)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
    assert world.facilitator.history(JOB) == world.facilitator.history(OTHER) == WHOLE


async def test_a_job_on_the_trusted_miner_costs_nothing_and_blames_nobody(world: World) -> None:
    world.limits |= {"trusted_miner_address": "trusted", "trusted_miner_port": 8000}
    miner = world.miner(whole_job, host="trusted", hotkey=TRUSTED_MINER_HOTKEY)
    await world.run(status="completed", on_trusted_miner=True, execution_time_limit=10)
    assert isinstance(miner.seen[0], vm.ValidatorAuthForMiner)
    assert miner.seen[0].miner_hotkey == TRUSTED_MINER_HOTKEY
    assert isinstance(miner.seen[-1], vm.V0JobFinishedReceiptRequest)
    assert miner.seen[-1].payload.score_str == "0.000000"


async def test_a_streaming_job_reports_its_server(world: World) -> None:
    async def stream(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0StreamingJobReadyRequest(job_uuid=job, public_key="PEM", ip="1.2.3.4", port=6000),
            vm.V0ExecutionDoneRequest(job_uuid=job),
            result(job),
        )
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    world.miner(stream)
    await world.run(status="completed", streaming_details={"public_key": "PEM"})
    assert world.facilitator.history(JOB) == [*WHOLE[:4], "streaming_ready", *WHOLE[4:]]
    ready = await world.facilitator.wait_for(JOB, "streaming_ready")
    assert ready.metadata is not None
    assert ready.metadata.streaming_details is not None
    assert ready.metadata.streaming_details.streaming_server_port == 6000


# the miner says no


@pytest.mark.parametrize("reason", list(RejectionReason))
async def test_a_decline_rejects_the_job(world: World, reason: RejectionReason) -> None:
    async def decline(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest()
        job = (await miner.expect(vm.V0InitialJobRequest)).job_uuid
        await miner.send(vm.V0DeclineJobRequest(job_uuid=job, reason=reason, message="no", context={"a": 1}))
        receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
        assert receipt.payload.score_str == "0.000000"

    miner = world.miner(decline)
    update = await world.run(status="rejected")
    assert not miner.errors
    assert update.metadata is not None
    details = update.metadata.job_rejection_details
    assert details is not None
    assert (details.rejected_by, details.reason, details.message) == (Participant.MINER, reason, "no")
    assert details.context == {"a": 1}
    assert await world.incidents() == []


async def test_a_users_fault_is_passed_on_whole_and_is_no_incident(world: World) -> None:
    found = problem("nonzero_exit", "the job exited with 3")
    failed = to_wire(found, JOB, reported_by=Participant.EXECUTOR, stdout="out", stderr="err", exit_status=3)
    world.miner(ending(failed))
    update = await world.run(status="failed")
    assert update.metadata is not None
    details = update.metadata.job_failure_details
    assert details is not None
    assert details.model_dump() == failed.model_dump(exclude={"message_type", "job_uuid"})
    assert Problem.from_context(details.context, details.message) == found
    assert await world.incidents() == []


@pytest.mark.parametrize(
    ("message", "blame"),
    [
        (to_wire(problem("engine_unavailable", "m"), JOB, reported_by=Participant.EXECUTOR), "engine_unavailable"),
        (to_wire(problem("image_pull_failed", "m"), JOB, reported_by=Participant.EXECUTOR), None),
        (
            vm.V0HordeFailedRequest(
                job_uuid=JOB,
                reported_by=Participant.MINER,
                message="older peer",
                reason=HordeFailureReason.EXECUTOR_SPINUP_FAILED,
            ),
            "executor_spinup_failed",
        ),
        (vm.V0ExecutorFailedRequest(job_uuid=JOB), "generic_error"),
    ],
    ids=["miner", "nobody", "older-peer", "legacy-message"],
)
async def test_a_horde_failure_blames_the_miner_only_for_its_own_fault(
    world: World, message: vm.Message, blame: str | None
) -> None:
    world.miner(ending(message))
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert await world.incidents() == ([(MINER.ss58_address, blame)] if blame else [])


async def test_a_failure_of_an_older_peer_without_a_problem_is_no_incident(world: World) -> None:
    world.miner(ending(vm.V0StreamingJobNotReadyRequest(job_uuid=JOB)))
    update = await world.run(status="failed")
    assert update.metadata is not None
    assert update.metadata.job_failure_details is not None
    assert update.metadata.job_failure_details.reason is FailureReason.UNKNOWN
    assert update.metadata.job_failure_details.stage is Stage.STREAMING_STARTUP
    assert await world.incidents() == []


# the miner says nothing (G23)


async def never_accepts(miner: MinerConnection) -> None:
    await miner.expect(vm.ValidatorAuthForMiner)
    await miner.manifest()
    await miner.expect(vm.V0InitialJobRequest)


async def never_has_volumes(miner: MinerConnection) -> None:
    await make_ready(miner)


async def never_executes(miner: MinerConnection) -> None:
    job = await make_ready(miner)
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))


async def never_streams(miner: MinerConnection) -> None:
    await never_executes(miner)


async def never_answers(miner: MinerConnection) -> None:
    job = await make_ready(miner)
    await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job))


@pytest.mark.parametrize(
    ("script", "code", "reason", "changes"),
    [
        (never_accepts, "miner_silent", HordeFailureReason.INITIAL_RESPONSE_TIMED_OUT, {}),
        (accept, "executor_late", HordeFailureReason.EXECUTOR_READINESS_RESPONSE_TIMED_OUT, {}),
        (never_has_volumes, "volumes_late", HordeFailureReason.VOLUMES_TIMED_OUT, {}),
        (
            never_streams,
            "streaming_late",
            HordeFailureReason.STREAMING_JOB_READY_TIMED_OUT,
            {"streaming_details": {"public_key": "PEM"}},
        ),
        (never_executes, "execution_late", HordeFailureReason.EXECUTION_TIMED_OUT, {}),
        (never_answers, "result_late", HordeFailureReason.FINAL_RESPONSE_TIMED_OUT, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_missed_deadline_is_a_horde_failure_and_an_incident(
    world: World, script: Script, code: str, reason: HordeFailureReason, changes: dict[str, Any]
) -> None:
    world.limits = dict(SHORT)

    async def and_then_the_receipt(miner: MinerConnection) -> None:
        await script(miner)
        receipt = await miner.expect(vm.V0JobFinishedReceiptRequest)
        assert receipt.payload.score_str == "0.000000"

    miner = world.miner(and_then_the_receipt)
    update = await world.run(status="horde_failed", **changes)
    assert not miner.errors
    assert update.metadata is not None
    details = update.metadata.horde_failure_details
    assert details is not None
    assert (details.reported_by, details.reason) == (Participant.VALIDATOR, reason)
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    assert (found.code, found.fault) == (code, Fault.MINER)
    assert await world.incidents() == [(MINER.ss58_address, code)]


async def test_a_job_longer_than_ten_minutes_is_not_given_up_early(world: World) -> None:
    """G32: the existing validator waits 600 s, whatever the job's limits."""
    miner = world.miner(whole_job)
    limits = {"download_time_limit": 3600, "execution_time_limit": 7200, "upload_time_limit": 3600}
    await world.run(status="completed", **limits)
    assert isinstance(miner.seen[1], vm.V0InitialJobRequest)
    assert miner.seen[1].executor_timing is not None
    assert miner.seen[1].executor_timing.execution_time_limit == 7200


# nobody to ask


async def rejection(world: World, **changes: Any) -> Problem:
    update = await world.run(status="rejected", **changes)
    assert world.facilitator.history(JOB) == ["received", "rejected"]
    assert update.metadata is not None
    details = update.metadata.job_rejection_details
    assert details is not None
    assert details.rejected_by is Participant.VALIDATOR
    assert details.reason is RejectionReason.NO_MINER_FOR_JOB
    found = Problem.from_context(details.context, details.message)
    assert found is not None
    return found


async def test_no_miner_is_known(world: World) -> None:
    assert "No miner is known" in (await rejection(world)).message


async def test_no_trusted_miner_is_configured(world: World) -> None:
    assert "no trusted miner" in (await rejection(world, on_trusted_miner=True)).message


async def test_no_miner_has_the_class(world: World) -> None:
    async def has_none(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        await miner.manifest(0)
        await miner.expect(vm.V0InitialJobRequest)  # the link is closed instead

    miner = world.miner(has_none)
    found = await rejection(world)
    assert "always_on.test" in found.message
    assert len(miner.seen) == 1
    assert await world.receipts() == []
    assert await world.incidents() == []


async def test_all_miners_unreachable_is_a_horde_failure_without_receipts(world: World) -> None:
    world.chain.current = Directory(
        signers=frozenset({USER.ss58_address}),
        miners=(MinerEndpoint(hotkey=MINER.ss58_address, address="nowhere", port=1),),
    )
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert update.metadata.horde_failure_details.reason is HordeFailureReason.MINER_CONNECTION_FAILED
    assert await world.receipts() == []
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


@pytest.mark.parametrize("fault", ["unreachable", "silent", "refusing", "classless"])
async def test_a_miner_that_cannot_take_the_job_is_skipped(world: World, fault: str) -> None:
    world.limits["miner_connect_limit"] = 0.2

    async def refuse(miner: MinerConnection) -> None:
        await miner.send(vm.GenericError(details="Unknown validator"))
        await miner.channel.close()

    async def classless(miner: MinerConnection) -> None:
        await miner.manifest(0)

    scripts = {"silent": silence, "refusing": refuse, "classless": classless}
    first = world.miner(scripts.get(fault, silence), host="first", hotkey=STRANGER.ss58_address)
    if fault == "unreachable":
        world.dialer.unplug("ws://first:8000/")
    second = world.miner(whole_job)
    await world.run(status="completed")
    assert not first.errors
    assert not second.errors
    assert world.facilitator.history(JOB) == WHOLE


# the gate (sections 3 and 5.4)


@pytest.mark.parametrize(
    ("request_of", "text"),
    [
        (lambda: job_request(JOB, STRANGER), f"Signatory {STRANGER.ss58_address} is not in validator whitelist"),
        (lambda: job_request(JOB, USER).model_copy(update={"docker_image": "evil"}), "Bad signature"),
        (lambda: job_request(JOB, USER, timestamp_ns=1_735_689_600_000_000_000), "s old, the limit is 300 s"),
    ],
    ids=["stranger", "other-body", "too-old"],
)
async def test_a_bad_signature_is_rejected_without_received(
    world: World, request_of: Callable[[], vm.Message], text: str
) -> None:
    miner = world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(request_of())
        update = await world.facilitator.wait_for(JOB, "rejected")
        await world.facilitator.push(request_of())  # redelivered: still one answer
        await asyncio.sleep(0.05)
    assert world.facilitator.history(JOB) == ["rejected"]
    assert update.metadata is not None
    assert update.metadata.job_rejection_details is not None
    assert update.metadata.job_rejection_details.reason is RejectionReason.INVALID_SIGNATURE
    assert text in update.metadata.job_rejection_details.message
    assert miner.urls == []


async def test_a_replayed_signature_is_rejected_and_a_redelivered_job_is_not_run_twice(world: World) -> None:
    miner = world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        request = job_request(JOB, USER)
        await world.facilitator.push(request)
        await world.facilitator.push(request)
        await world.facilitator.wait_for(JOB, "completed")
        await world.facilitator.push(request.model_copy(update={"uuid": OTHER}))
        update = await world.facilitator.wait_for(OTHER, "rejected")
    assert update.metadata is not None
    assert update.metadata.job_rejection_details is not None
    assert "already used" in update.metadata.job_rejection_details.message
    assert world.facilitator.history(JOB) == WHOLE
    assert len(miner.urls) == 1


async def test_the_validators_own_hotkey_may_sign(world: World) -> None:
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, VALIDATOR))
        await world.facilitator.wait_for(JOB, "completed")


# odd frames


async def test_malformed_and_foreign_frames_of_a_miner_change_nothing(world: World) -> None:
    async def rude(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send("PING", "{not json", '{"message_type": "V9New"}')
        for _ in range(2):
            assert "Malformed message" in (await miner.expect(vm.GenericError)).details
        await miner.send(
            vm.GenericError(details="?"),
            vm.V0MachineSpecsRequest(job_uuid=job, specs={}),
            vm.V0MainHotkeyMessage(),
            vm.V0JobFailedRequest(job_uuid=OTHER, message="foreign"),
            vm.V0ExecutorReadyRequest(job_uuid=job),
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0VolumesReadyRequest(job_uuid=job),
            vm.V0AcceptJobRequest(job_uuid=job),
        )
        await finish(miner, job)

    miner = world.miner(rude)
    await world.run(status="completed")
    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE


async def test_an_oversized_frame_of_a_miner_ends_the_job(world: World) -> None:
    async def huge(miner: MinerConnection) -> None:
        await make_ready(miner)
        await miner.send("x" * (MAX_MINER_FRAME_BYTES + 1))

    world.miner(huge)
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert "larger than allowed" in update.metadata.horde_failure_details.message


async def test_odd_frames_of_the_facilitator_are_dropped(world: World) -> None:
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        facilitator = world.facilitator
        for frame in ("{", "[]", '{"message_type": "V9New"}', '{"status": "maybe"}', Response(status="success")):
            await facilitator.push(frame)
        await facilitator.push(job_request("not-a-uuid", USER))
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "completed")
    assert len(facilitator.authentications) == 1
    assert facilitator.history("not-a-uuid") == []


async def test_a_bug_ends_the_job_and_not_the_validator(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.miner(whole_job)
    validator = world.validator()
    dispatch, calls = validator._dispatcher.dispatch, iter([True, False])

    async def broken_once(job: Any) -> Any:
        if next(calls):
            raise KeyError("secret")
        return await dispatch(job)

    monkeypatch.setattr(validator._dispatcher, "dispatch", broken_once)
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        update = await world.facilitator.wait_for(JOB, "horde_failed")
        await world.facilitator.push(job_request(OTHER, USER))
        await world.facilitator.wait_for(OTHER, "completed")
    assert "secret" not in update.to_frame()
    assert update.metadata is not None
    details = update.metadata.horde_failure_details
    assert details is not None
    assert details.reason is HordeFailureReason.UNHANDLED_EXCEPTION
    assert details.context is not None
    assert details.context["exception_type"] == "KeyError"


# lost connections (G13, G31, G52) and restarts


async def test_a_lost_miner_is_dialled_again_and_its_replay_is_not_repeated(world: World) -> None:
    async def lost(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await miner.send(vm.V0VolumesReadyRequest(job_uuid=job))
        await asyncio.sleep(0.05)
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        assert (await miner.expect(vm.ValidatorAuthForMiner)).is_signed(verify)
        await miner.manifest()
        await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB), vm.V0ExecutorReadyRequest(job_uuid=JOB))
        await finish(miner, JOB)

    miner = world.miner(lost, back)
    await world.run(status="completed", execution_time_limit=5)
    assert not miner.errors
    assert world.facilitator.history(JOB) == WHOLE


@pytest.mark.parametrize("when", ["asked", "ready"])
async def test_what_a_lost_miner_may_not_have_got_is_sent_again(world: World, when: str) -> None:
    async def lost(miner: MinerConnection) -> None:
        await (never_accepts if when == "asked" else make_ready)(miner)
        await miner.channel.close(1006)

    async def back(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if when == "asked":
            await miner.expect(vm.V0InitialJobRequest)
            await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB))
            await miner.expect(vm.V0JobAcceptedReceiptRequest)
            await miner.send(vm.V0ExecutorReadyRequest(job_uuid=JOB))
        await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(lost, back)
    await world.run(status="completed")
    assert not miner.errors
    initial = [m for m in miner.seen if isinstance(m, vm.V0InitialJobRequest)]
    assert len({m.job_started_receipt_payload for m in initial}) == 1
    assert world.facilitator.history(JOB) == WHOLE


async def test_a_miner_that_stays_away_is_a_horde_failure(world: World) -> None:
    world.limits = dict(SHORT)

    async def lost(miner: MinerConnection) -> None:
        await make_ready(miner)
        world.dialer.unplug("ws://miner:8000/")
        await miner.channel.close(1006)

    world.miner(lost)
    update = await world.run(status="horde_failed")
    assert update.metadata is not None
    assert update.metadata.horde_failure_details is not None
    assert update.metadata.horde_failure_details.reason is HordeFailureReason.MINER_CONNECTION_FAILED
    assert await world.incidents() == [(MINER.ss58_address, "miner_unreachable")]


async def test_a_jobs_messages_on_a_siblings_connection_reach_it(world: World) -> None:
    """A miner that was away re-sends all of a validator's jobs on whichever connection comes first."""
    ready: dict[str, MinerConnection] = {}
    both = asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        ready[await make_ready(miner)] = miner
        if len(ready) == 2:
            both.set()
        await both.wait()
        if miner is ready[OTHER]:
            for job in (JOB, OTHER):
                await miner.send(vm.V0VolumesReadyRequest(job_uuid=job), vm.V0ExecutionDoneRequest(job_uuid=job))
                await miner.send(result(job))
        await miner.expect(vm.V0JobFinishedReceiptRequest)

    miner = world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        for uuid in (JOB, OTHER):
            await world.facilitator.push(job_request(uuid, USER))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
    assert not miner.errors


async def test_no_status_is_lost_repeated_or_reordered_while_the_facilitator_is_away(world: World) -> None:
    facilitator, go = world.facilitator, asyncio.Event()

    async def script(miner: MinerConnection) -> None:
        job = await make_ready(miner)
        await go.wait()
        await finish(miner, job)

    world.miner(script)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "executor_ready")
        await facilitator.unplug()
        go.set()
        await asyncio.sleep(0.1)
        assert not validator.connected.is_set()
        facilitator.plug()
        await facilitator.wait_for(JOB, "completed")
    assert sorted(set(facilitator.history(JOB)), key=WHOLE.index) == WHOLE
    assert list(dict.fromkeys(facilitator.history(JOB))) == WHOLE
    assert len(facilitator.authentications) >= 2


async def test_an_unacknowledged_status_is_sent_again_and_a_known_one_counts_as_acknowledged(world: World) -> None:
    facilitator = world.facilitator
    facilitator.silent = True
    world.miner(whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await facilitator.push(job_request(JOB, USER))
        await facilitator.wait_for(JOB, "received")
        await asyncio.sleep(0.1)
        assert facilitator.history(JOB) == ["received"]  # one at a time
        facilitator.silent = False
        facilitator.answers["received"] = Response.error("job.integrity_error", "twice")
        await facilitator.drop()
        await facilitator.wait_for(JOB, "completed")
    assert facilitator.history(JOB) == ["received", *WHOLE]


async def test_a_refused_validator_tries_again(world: World) -> None:
    facilitator = world.facilitator
    facilitator.answers["authentication"] = Response.error("auth.validator_not_found", "who?")
    validator = world.validator()
    async with running(validator):
        while len(facilitator.authentications) < 3:
            await asyncio.sleep(0.01)
        assert not validator.connected.is_set()
        facilitator.answers.clear()
        await asyncio.wait_for(validator.connected.wait(), 5)
    key = bytes.fromhex(facilitator.authentications[0].public_key)
    assert verify_hex(verify, VALIDATOR.ss58_address, key, facilitator.authentications[0].signature)
    assert {"X-Validator-Version", "X-Validator-Runner-Version"} < set(facilitator.headers[0])
    assert facilitator.headers[0]["X-CH-Max-Frame-Bytes"] == "52428800"


async def test_heartbeats_are_sent(world: World) -> None:
    validator = world.validator(heartbeat_seconds=0.01)
    async with running(validator):
        async with asyncio.timeout(5):
            while world.facilitator.heartbeats < 3:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("stage", ["asked", "accepted", "ready", "volumes"])
async def test_a_restart_goes_on_where_the_job_was(world: World, stage: str) -> None:
    reached = asyncio.Event()
    steps = {"asked": never_accepts, "accepted": accept, "ready": make_ready, "volumes": never_executes}

    async def first(miner: MinerConnection) -> None:
        await steps[stage](miner)
        await asyncio.sleep(0.05)
        reached.set()

    async def replay(miner: MinerConnection) -> None:
        await miner.expect(vm.ValidatorAuthForMiner)
        if stage == "asked":
            await miner.expect(vm.V0InitialJobRequest)
        await miner.send(vm.V0AcceptJobRequest(job_uuid=JOB), vm.V0ExecutorReadyRequest(job_uuid=JOB))
        if stage == "asked":
            await miner.expect(vm.V0JobAcceptedReceiptRequest)
        if stage != "volumes":
            await miner.expect(vm.V0JobRequest)
        await finish(miner, JOB)

    miner = world.miner(first, replay)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await reached.wait()
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "completed")
        await asyncio.sleep(0.05)
    assert not miner.errors
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE
    assert await world.receipts() == ["JobAcceptedReceipt", "JobFinishedReceipt", "JobStartedReceipt"]


async def test_a_restart_begins_anew_where_no_miner_was_asked(world: World) -> None:
    world.limits["miner_connect_limit"] = 30
    world.miner(silence, whole_job)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.wait_for(JOB, "received")
    async with running(world.validator()):
        await world.facilitator.wait_for(JOB, "completed")
    assert list(dict.fromkeys(world.facilitator.history(JOB))) == WHOLE


# cheat reports (G1, G2)


def cheat(signer: Any, form: str = "text", job: str = JOB, trusted: str = OTHER) -> V0JobCheated:
    payload = {"job_uuid": job, "trusted_job_uuid": trusted, "details": None}
    signed = canonical_text(payload) if form == "text" else payload
    signature = sign_payload(signer, signed, SignatureScope.FULL_REQUEST, 1)
    return V0JobCheated(signature=signature, job_uuid=job, trusted_job_uuid=trusted)


@pytest.mark.parametrize("form", ["text", "object"])
@pytest.mark.parametrize("with_details", [True, False])
async def test_a_cheat_report_is_verified_in_both_forms_and_counts_once(
    world: World, form: str, with_details: bool
) -> None:
    world.limits |= {"trusted_miner_address": "trusted", "trusted_miner_port": 8000}
    world.miner(whole_job)
    world.miner(whole_job, host="trusted", hotkey=TRUSTED_MINER_HOTKEY)
    validator = world.validator()
    async with running(validator):
        await validator.connected.wait()
        await world.facilitator.push(cheat(USER, form))  # before the job: dropped
        await world.facilitator.push(job_request(JOB, USER))
        await world.facilitator.push(job_request(OTHER, USER, on_trusted_miner=True))
        for uuid in (JOB, OTHER):
            await world.facilitator.wait_for(uuid, "completed")
        for bad in (cheat(STRANGER), cheat(USER, job=OTHER, trusted=JOB), cheat(USER, trusted=JOB)):
            await world.facilitator.push(bad)
        await world.facilitator.push(cheat(USER).model_copy(update={"details": "changed"}))
        await world.facilitator.push(cheat(VALIDATOR))  # another signer's job
        await asyncio.sleep(0.05)
        assert await world.incidents() == []
        report = cheat(USER, form)
        frame = report.to_frame() if with_details else report.model_dump_json(exclude={"details"})
        for _ in range(2):
            await world.facilitator.push(frame)
        await asyncio.sleep(0.1)
    assert await world.incidents() == [(MINER.ss58_address, "job_cheated")]
