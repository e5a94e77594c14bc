"""Why a job has not started: data that programs read, and one golden text for each situation."""

from dataclasses import replace
from typing import Any

import pytest

from compute_horde.lifecycle.failures import problem
from compute_horde.lifecycle.states import PROGRESS, TERMINAL, JobState
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.explanation import MAX_MINERS, Explanation
from compute_horde.protocol.scheduling import QueuePlace
from compute_horde.validator.queue.explain import explain, reason
from compute_horde.validator.queue.view import Answer, FailedAttempt, KnownMiner, Trial, View
from compute_horde.validator.queue.words import duration, sentence

TEST, GPU = ExecutorClass.always_on__test, ExecutorClass.always_on__gpu_24gb
AT = 1_700_000_000.0
WHEN = "2023-11-14 22:13:20 UTC"
TWO = {TEST: 2}
BUSY = KnownMiner("m1", offers=TWO, free=0)
QUEUED = View("job", JobState.QUEUED, TEST, attempts=3, queue_left_s=3600)
FAILED = FailedAttempt(1, "m1", "executor_disconnected", "the executor was lost", AT)
GIVEN_UP = "Cancel it if it need not run; it is given up by itself in about 60 min."


def view(**facts: Any) -> View:
    return replace(QUEUED, **facts)


def told(found: Explanation, hotkey: str = "m1") -> tuple[str, str, str]:
    miner = next(miner for miner in found.miners if miner.miner_hotkey == hotkey)
    return miner.answer, miner.message, miner.remedy


SITUATIONS: dict[str, tuple[View, str, list[str]]] = {
    "all executors busy": (
        view(miners=[BUSY, KnownMiner("m2", {TEST: 1})], place=QueuePlace(position=3, length=7, starts_in_s=130)),
        "All 3 executors of class always_on.test are busy. The job is number 3 of 7 in the queue.",
        [
            (
                "Wait: it starts when one of the 3 executors of class always_on.test is free, after 2 other jobs; "
                "that is in about 2 min."
            ),
            GIVEN_UP,
        ],
    ),
    "the only executor busy": (
        view(miners=[KnownMiner("m1", {TEST: 1})], place=QueuePlace(position=2)),
        "The only executor of class always_on.test is busy. The job is number 2 in the queue.",
        ["Wait: it starts when the executor of class always_on.test is free, after 1 other job.", GIVEN_UP],
    ),
    "busy, and how many executors there are is not known": (
        view(miners=[KnownMiner("m1")], trials=[Trial("m1", Answer.BUSY)]),
        "All executors of class always_on.test are busy.",
        ["Wait: it starts when one of the executors of class always_on.test is free.", GIVEN_UP],
    ),
    "given up before its turn": (
        view(miners=[BUSY], queue_left_s=90, place=QueuePlace(position=1, length=1, starts_in_s=400)),
        "All 2 executors of class always_on.test are busy. The job is number 1 of 1 in the queue.",
        [
            "Wait: it starts when one of the 2 executors of class always_on.test is free; that is in about 7 min.",
            "Create it again with a longer queue_time_limit: it is probably given up before its turn comes.",
            "Cancel it if it need not run; it is given up by itself in about 90 s.",
        ],
    ),
    "an executor is free": (
        view(miners=[replace(BUSY, free=1)], place=QueuePlace(position=1, length=1)),
        (
            "An executor of class always_on.test is free; the job is being offered to its miner. "
            "The job is number 1 of 1 in the queue."
        ),
        [GIVEN_UP],
    ),
    "nobody offers the class": (
        view(miners=[KnownMiner("m1", {GPU: 2, TEST: 0}), KnownMiner("m2", {GPU: 1})]),
        "No miner offers executors of class always_on.test.",
        [
            "Create it again with a class that is offered: always_on.gpu-24gb (3 executors).",
            "Wait until a miner offers this class.",
            GIVEN_UP,
        ],
    ),
    "nobody offers anything": (
        view(miners=[KnownMiner("m1", {})]),
        "No miner offers executors of class always_on.test.",
        ["Wait until a miner offers this class.", GIVEN_UP],
    ),
    "all away": (
        view(miners=[KnownMiner("m1", away_since=AT), KnownMiner("m2", away_since=AT)]),
        "No miner that may have executors of class always_on.test can be reached (2 miners).",
        [
            "Wait: they are dialled again and again.",
            "Their operators can check that they run and that their addresses can be reached from the validator.",
            GIVEN_UP,
        ],
    ),
    "no miner at all": (
        view(),
        "This validator knows of no miner.",
        ["Create the job at another validator, or wait until one registers.", GIVEN_UP],
    ),
    "no trusted miner": (
        view(on_trusted_miner=True),
        "The job wishes the trusted miner, and this validator has none.",
        ["Create it again without on_trusted_miner, or at a validator that has a trusted miner.", GIVEN_UP],
    ),
    "miners not asked yet": (
        view(miners=[KnownMiner("m1")]),
        "The validator is asking miners for an executor of class always_on.test.",
        [GIVEN_UP],
    ),
    "backoff": (
        view(attempt=2, retry_in_s=4, failed=[FAILED], miners=[BUSY]),
        (
            "Attempt 1 of 3 failed on miner m1 (executor_disconnected): The executor was lost. "
            "Attempt 2 of 3 begins in about 4 s."
        ),
        ["Wait for it.", GIVEN_UP],
    ),
    "each miner declined it or failed": (
        view(miners=[BUSY, KnownMiner("m2", TWO)], failed=[FAILED], trials=[Trial("m2", Answer.DECLINED)]),
        (
            "Attempt 1 of 3 failed on miner m1 (executor_disconnected): The executor was lost. "
            "Each of the 2 miners that could be asked declined the job or failed it."
        ),
        [
            "Look at each miner's answer: what is the job's own doing can be changed; then create it again.",
            GIVEN_UP,
        ],
    ),
    "the only miner declined it": (
        view(miners=[BUSY], trials=[Trial("m1", Answer.DECLINED)], queue_left_s=None),
        "The only miner that could be asked declined the job or failed it.",
        ["Look at each miner's answer: what is the job's own doing can be changed; then create it again."],
    ),
    "being cancelled": (
        view(cancel_wished=True, miners=[BUSY]),
        "The job is being cancelled.",
        ["Wait: it ends within a minute."],
    ),
    "not confirmed by the facilitator": (
        view(state=JobState.RECEIVED, is_confirmed=False, miners=[BUSY]),
        "The facilitator has not confirmed yet that this validator has the job.",
        ["Wait some seconds; if it lasts, the facilitator cannot be reached, and its operator can look."],
    ),
    "just received": (
        view(state=JobState.RECEIVED, miners=[replace(BUSY, free=2)]),
        "An executor of class always_on.test is free; the job is being offered to its miner.",
        [],
    ),
    "accepted": (
        view(state=JobState.ACCEPTED, miner="m1", attempt=2, failed=[replace(FAILED, miner_hotkey="m0")]),
        (
            "Attempt 1 of 3 failed on miner m0 (executor_disconnected): The executor was lost. "
            "Miner m1 gets an executor ready for the job (attempt 2 of 3)."
        ),
        [],
    ),
    "runs on a miner that is away": (
        view(state=JobState.VOLUMES_READY, miner=TRUSTED_MINER_HOTKEY, attempts=1, miner_away_since=AT),
        (
            "The trusted miner has the job's inputs and runs its container. "
            f"The connection to it has been lost since {WHEN}. "
            "The validator dials again while the job's time lasts."
        ),
        [
            "Wait: the miner goes on by itself, and delivers when it can be reached again.",
            "Its operator can check that it runs and that its address can be reached from the validator.",
        ],
    ),
    "under way, and nobody knows where": (
        view(state=JobState.EXECUTION_DONE, attempts=1),
        "A miner has run the job's container and delivers its outputs.",
        [],
    ),
    "completed": (view(state=JobState.COMPLETED), "The job completed.", []),
    "completed at last": (
        view(state=JobState.COMPLETED, attempt=2),
        "The job completed in attempt 2 of 3.",
        [],
    ),
    "failed": (
        view(state=JobState.FAILED, ending=problem("nonzero_exit", "the container ended with 7")),
        "The job failed (nonzero_exit): The container ended with 7.",
        ["Look at the job's stderr and exit code."],
    ),
    "failed without a hint": (
        view(state=JobState.FAILED, ending=problem("nonzero_exit", "It ended!").model_copy(update={"hint": ""})),
        "The job failed (nonzero_exit): It ended!",
        [],
    ),
    "cancelled": (view(state=JobState.CANCELLED), "The job was cancelled.", []),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_golden_texts(name: str) -> None:
    facts, summary, remedies = SITUATIONS[name]
    found = explain(facts)
    assert (found.summary, found.remedies) == (summary, remedies)


@pytest.mark.parametrize("state", JobState)
def test_every_state_is_explained(state: JobState) -> None:
    found = explain(view(state=state, miner="m1", miners=[BUSY]))
    assert (found.state, found.reported_by, found.job_uuid) == (state.value, "validator", "job")
    assert found.summary.endswith(".")
    assert Explanation.model_validate_json(found.to_frame()) == found


def test_numbers_come_as_data_too() -> None:
    place = QueuePlace(position=2, length=5, starts_in_s=40)
    found = explain(view(attempt=2, place=place))
    assert (found.attempt, found.attempts, found.queue, found.queue_time_left_s) == (2, 3, place, 3600)


@pytest.mark.parametrize("state", [*PROGRESS[3:], *sorted(TERMINAL)])
def test_a_job_that_does_not_wait_has_no_place(state: JobState) -> None:
    found = explain(view(state=state, place=QueuePlace(position=1)))
    assert (found.queue, found.queue_time_left_s) == (None, None)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"miners": [KnownMiner("m1")]},
            (
                "not_tried",
                "Not asked yet.",
                "It is asked when it is this job's turn and an executor is free there.",
            ),
        ),
        (
            {"miners": [BUSY], "trials": [Trial("m1", Answer.NOT_TRIED)]},
            (
                "not_tried",
                "Not asked yet: its 2 executors are busy.",
                "It is asked when it is this job's turn and an executor is free there.",
            ),
        ),
        (
            {"miners": [KnownMiner("m1", {TEST: 1}, free=0)]},
            (
                "not_tried",
                "Not asked yet: its executor of class always_on.test is busy.",
                "It is asked when it is this job's turn and an executor is free there.",
            ),
        ),
        (
            {"miners": [BUSY], "trials": [Trial("m1", Answer.BUSY, "every executor is busy")]},
            (
                "busy",
                "Every executor is busy.",
                "It can run the job when one of its 2 executors of class always_on.test is free.",
            ),
        ),
        (
            {"trials": [Trial("m1", Answer.BUSY)]},  # no longer registered
            ("busy", "It was busy.", "It can run the job when one of its executors is free."),
        ),
        (
            {
                "miners": [KnownMiner("m1", TWO, away_since=AT, asked_again_in_s=8)],
                "trials": [Trial("m1", Answer.UNREACHABLE, "connection refused")],
            },
            (
                "unreachable",
                f"It has not been reached since {WHEN}. Connection refused.",
                (
                    "Its operator can check that it runs and that its address can be reached from the validator. "
                    "It is asked again in about 8 s."
                ),
            ),
        ),
        (
            {"trials": [Trial("m1", Answer.UNREACHABLE)]},
            (
                "unreachable",
                "It cannot be reached.",
                "Its operator can check that it runs and that its address can be reached from the validator.",
            ),
        ),
        (
            {"miners": [KnownMiner("m1", {GPU: 1})], "trials": [Trial("m1", Answer.BUSY)]},
            (
                "class_not_offered",
                "It has no executors of class always_on.test.",
                "Its operator would have to add some.",
            ),
        ),
        (
            {"miners": [KnownMiner("m1", TWO)], "trials": [Trial("m1", Answer.CLASS_NOT_OFFERED)]},  # it has now
            (
                "not_tried",
                "Not asked yet.",
                "It is asked when it is this job's turn and an executor is free there.",
            ),
        ),
        (
            {
                "miners": [replace(BUSY, away_since=AT)],  # what it declined, it has declined
                "trials": [Trial("m1", Answer.DECLINED, "the job is too long", "Lower the job's time limits.")],
            },
            ("declined", "The job is too long.", "Lower the job's time limits."),
        ),
        (
            {"trials": [Trial("m1", Answer.DECLINED)]},
            ("declined", "It declined the job.", "Another miner has to run the job."),
        ),
        (
            {"miners": [replace(BUSY, asked_again_in_s=30)], "trials": [Trial("m1", Answer.SILENT)]},
            ("silent", "It did not answer the offer in time.", "It is asked again in about 30 s."),
        ),
        (
            {"trials": [Trial("m1", Answer.SILENT)]},
            ("silent", "It did not answer the offer in time.", "It is asked again."),
        ),
        (
            {"state": JobState.ACCEPTED, "miner": "m1", "miners": [BUSY], "failed": [FAILED]},
            ("accepted", "It accepted the job.", ""),
        ),
        (
            {"miners": [BUSY], "trials": [Trial("m1", Answer.ACCEPTED)], "failed": [FAILED]},
            (
                "excluded",
                "Attempt 1 failed on it (executor_disconnected): The executor was lost.",
                "It is not asked again for this job; another miner has to run it.",
            ),
        ),
        (
            {"state": JobState.HORDE_FAILED, "miner": "m1", "miners": [BUSY], "failed": [FAILED]},
            ("failed", "Attempt 1 failed on it (executor_disconnected): The executor was lost.", ""),
        ),
        (
            {"state": JobState.COMPLETED, "miner": "m1", "trials": [Trial("m1", Answer.ACCEPTED)]},
            ("accepted", "It accepted the job.", ""),
        ),
    ],
)
def test_each_miner_has_an_answer_a_message_and_a_remedy(
    facts: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert told(explain(view(**facts))) == expected


def test_the_trusted_miner_is_tried_again_and_its_last_failure_counts() -> None:
    first = replace(FAILED, miner_hotkey=TRUSTED_MINER_HOTKEY)
    second = replace(first, number=2, code="engine_unavailable", message="no engine")
    facts = view(
        attempt=3, on_trusted_miner=True, failed=[second, first], miners=[KnownMiner(TRUSTED_MINER_HOTKEY)]
    )
    found = explain(facts)
    assert told(found, TRUSTED_MINER_HOTKEY) == (
        "failed",
        "Attempt 2 failed on it (engine_unavailable): No engine.",
        "It may be tried again, since there is no other trusted miner.",
    )
    assert found.summary.startswith("Attempt 2 of 3 failed on the trusted miner (engine_unavailable): No engine.")


def test_those_that_were_asked_last_come_first_and_very_many_are_left_out() -> None:
    miners = [KnownMiner(f"m{n:03}") for n in range(MAX_MINERS + 5)]
    trials = [Trial("m204", Answer.BUSY, tries=3, last_at=AT), Trial("m100", Answer.BUSY, last_at=AT + 1)]
    found = explain(view(miners=miners, trials=trials, failed=[replace(FAILED, miner_hotkey="m150", at=AT - 1)]))
    assert [miner.miner_hotkey for miner in found.miners[:4]] == ["m100", "m204", "m150", "m000"]
    assert len(found.miners) == MAX_MINERS
    asked = found.miners[1]
    assert (asked.tries, asked.last_at and asked.last_at.timestamp()) == (3, AT)
    assert (found.miners[3].tries, found.miners[3].last_at) == (0, None)


def test_the_reason_is_one_sentence() -> None:
    assert reason(view(miners=[BUSY], place=QueuePlace(position=3))) == (
        "All 2 executors of class always_on.test are busy."
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (3e5, "3 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_no_words_make_no_sentence() -> None:
    assert sentence("  ") == ""
