"""What the miner declines, and how it says so (section 6.6; G44, G45)."""

import datetime as dt
import uuid
from pathlib import Path

from compute_horde.miner.testing import (
    ALICE,
    BOB,
    LLM,
    TEST,
    FakeClock,
    Horde,
    initial,
    open_horde,
    started,
    until,
)
from compute_horde.protocol.problems import Problem
from compute_horde.protocol.receipts import RECEIPT
from compute_horde.protocol.validator_miner import ExecutorTiming, V0InitialJobRequest, signed_request


def new_job() -> str:
    return str(uuid.uuid4())


async def declined(horde: Horde, message: V0InitialJobRequest | str) -> tuple[str, Problem]:
    validator = await horde.validator()
    await validator.say(message)
    answer = await validator.expect("V0DeclineJobRequest")
    found = Problem.from_context(answer["context"], answer["message"])
    assert found is not None
    assert not horde.launcher.launched
    assert horde.miner.pool.free(TEST) == 2
    return answer["reason"], found


async def test_a_class_that_is_not_offered_is_declined_with_a_problem(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        reason, found = await declined(horde, initial(new_job(), executor_class=LLM))
        assert (reason, found.code, found.retryable) == ("unknown", "executor_class_not_offered", True)


async def test_a_bad_request_signature_is_declined(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        changed = initial(new_job()).model_copy(update={"docker_image": "other"})
        reason, found = await declined(horde, changed)
        assert (reason, found.code) == ("invalid_signature", "invalid_signature")


async def test_a_signature_covers_the_frame_as_it_arrived(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        frame = initial(new_job()).to_frame()
        reason, _ = await declined(horde, frame[:-1] + ',"unknown_key":1}')
        assert reason == "invalid_signature"


async def test_a_request_of_an_older_validator_needs_no_signature(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(new_job()).model_copy(update={"validator_signature": None}))
        await validator.expect("V0AcceptJobRequest")


async def test_a_job_that_would_take_longer_than_the_operator_allows_is_declined(tmp_path: Path) -> None:
    async with open_horde(tmp_path, executor_lifetime=400, executor_startup_limit=300) as horde:
        long = ExecutorTiming(execution_time_limit=90)  # beside 7 to reserve, 3 to spin up and 300 to start
        validator = await horde.validator()
        reason, found = await declined(
            horde, initial(new_job(), timing=long.model_copy(update={"upload_time_limit": 1}))
        )
        assert (reason, found.code, found.retryable) == ("unknown", "limits_too_long", True)
        assert found.details == {"wanted_s": 401, "allowed_s": 400}
        await validator.say(initial(new_job(), timing=long))
        await validator.expect("V0AcceptJobRequest")


async def test_jobs_of_weeks_are_taken(tmp_path: Path) -> None:
    weeks = ExecutorTiming(download_time_limit=3600, execution_time_limit=30 * 24 * 3600, upload_time_limit=3600)
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        validator, _ = await horde.begun(new_job(), timing=weeks)
        clock.now += 30 * 24 * 3600
        await validator.silence()
        clock.now += 3 * 3600
        assert (await validator.expect("V0HordeFailedRequest"))["reason"] == "final_response_timed_out"


async def test_each_wrong_receipt_is_declined(tmp_path: Path) -> None:
    job = new_job()
    wrong = {
        "miner_hotkey": initial(job, payload=started(job, miner=BOB.ss58_address)),
        "validator_hotkey": initial(job, payload=started(job, BOB)),
        "job_uuid": initial(job, payload=started(new_job())),
        "executor_class": initial(job, payload=started(job, executor_class=LLM)),
        "signature": initial(job, receipt_signature=started(job).sign(BOB)),
        "not valid": initial(job, receipt_signature="0xnothex"),
    }
    async with open_horde(tmp_path) as horde:
        for field, message in wrong.items():
            reason, found = await declined(horde, message)
            assert (reason, found.code) == ("invalid_receipt", "invalid_receipt")
            assert field in found.message
        assert horde.miner.book is not None
        assert await horde.miner.book.page(0) is None


async def test_a_busy_miner_sends_its_excuses(tmp_path: Path) -> None:
    first, second = new_job(), new_job()
    async with open_horde(tmp_path, executors={TEST: 1}) as horde:
        alice, bob = await horde.validator(ALICE), await horde.validator(BOB)
        await alice.say(initial(first))
        await alice.expect("V0AcceptJobRequest")
        await bob.say(initial(second, BOB))
        answer = await bob.expect("V0DeclineJobRequest")
        assert answer["reason"] == "busy"
        [excuse] = [RECEIPT.validate_python(item) for item in answer["receipts"]]
        assert excuse.payload.job_uuid == first


async def test_receipts_out_of_their_time_are_no_excuse(tmp_path: Path) -> None:
    first, second = new_job(), new_job()
    async with open_horde(tmp_path, executors={TEST: 1}) as horde:
        alice = await horde.validator(ALICE)
        long_ago = started(first, timestamp=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1))
        await alice.say(initial(first, payload=long_ago))
        await alice.expect("V0AcceptJobRequest")
        await alice.say(initial(second))
        assert (await alice.expect("V0DeclineJobRequest"))["receipts"] == []


async def test_a_failed_launch_is_the_hordes_failure_and_frees_the_place(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        horde.launcher.broken = True
        validator = await horde.validator()
        await validator.say(initial(new_job()))
        await validator.expect("V0AcceptJobRequest")
        failure = await validator.expect("V0HordeFailedRequest")
        assert (failure["reason"], failure["reported_by"]) == ("executor_spinup_failed", "miner")
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_a_launch_that_never_returns_frees_its_place_in_the_end(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_horde(tmp_path, timers=clock.timers) as horde:
        horde.launcher.slow = True
        validator = await horde.validator()
        await validator.say(initial(new_job()))
        await validator.expect("V0AcceptJobRequest")
        clock.now += 3600
        await validator.expect("V0HordeFailedRequest")
        await until(lambda: horde.miner.pool.free(TEST) == 2)


async def test_a_job_whose_name_is_no_uuid_is_refused(tmp_path: Path) -> None:
    job = new_job()
    async with open_horde(tmp_path, trusted_for=ALICE.ss58_address) as horde:
        validator = await horde.validator()
        for name in ("../x", job.upper(), job + "\n"):
            await validator.say(initial(job).model_copy(update={"job_uuid": name, "validator_signature": None}))
            assert "UUID" in (await validator.expect("GenericError"))["details"]


async def test_two_requests_for_one_place_get_one_acceptance(tmp_path: Path) -> None:
    async with open_horde(tmp_path, executors={TEST: 1}) as horde:
        alice, bob = await horde.validator(ALICE), await horde.validator(BOB)
        await alice.say(initial(new_job()))
        await bob.say(initial(new_job(), BOB))
        answers = {(await peer.hear())["message_type"] for peer in (alice, bob)}
        assert answers == {"V0AcceptJobRequest", "V0DeclineJobRequest"}


async def test_anothers_job_uuid_is_refused_without_saying_more(tmp_path: Path) -> None:
    job = new_job()
    async with open_horde(tmp_path) as horde:
        alice, bob = await horde.validator(ALICE), await horde.validator(BOB)
        await alice.say(initial(job))
        await alice.expect("V0AcceptJobRequest")
        await bob.say(initial(job, BOB))
        assert (await bob.expect("GenericError"))["details"] == f"Unknown job: {job}"
        stolen = signed_request(initial(job, BOB), BOB)
        await bob.say(stolen)
        await bob.expect("GenericError")
        await alice.silence()
