"""What the services' metrics are called, count and leave out."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from compute_horde.lifecycle.states import TERMINAL, JobState
from compute_horde.protocol.enums import ExecutorClass, Fault, Stage
from compute_horde.telemetry import metrics as common
from compute_horde.telemetry.executor import ExecutorMetrics
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.metrics import JobMetrics, ServiceMetrics
from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.sampled import Read, Reading
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.telemetry.vocabulary import (
    DURATION_BUCKETS,
    Adoption,
    Direction,
    Peer,
    Refusal,
    TryOutcome,
    stage_between,
)

PAGE = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
TEST = ExecutorClass.always_on__test
NAME = re.compile(r"compute_horde_(facilitator|validator|miner|executor)_[a-z][a-z_]*[a-z]")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def facilitator() -> FacilitatorMetrics:
    made = FacilitatorMetrics()
    made.sample_jobs(lambda: {("sent",): 2, ("completed",): 5})
    made.sample_database_bytes(lambda: 4096)
    made.sample_undelivered_age(lambda: 1.5)
    made.sample_validators(lambda: 1)
    made.sample_streams(lambda: 3)
    made.login(True)
    made.login(False)
    return made


def validator() -> ValidatorMetrics:
    made = ValidatorMetrics()
    made.sample_jobs(lambda: {("queued",): 2})
    made.sample_database_bytes(lambda: 4096)
    made.sample_queue(lambda: {(TEST.value,): 2})
    made.sample_queue_age(lambda: {(TEST.value,): 12.5})
    made.sample_outbox(lambda: 4)
    made.sample_connected(lambda: 1)
    made.tried(TryOutcome.BUSY)
    made.attempt_ended(JobState.HORDE_FAILED, Fault.MINER)
    return made


def miner() -> MinerMetrics:
    made = MinerMetrics()
    made.sample_jobs(lambda: {("accepted",): 1})
    made.sample_database_bytes(lambda: 4096)
    made.sample_executors(lambda: {(TEST.value, "free"): 3, (TEST.value, "reserved"): 1})
    made.sample_outbox(lambda: 0)
    made.sample_validators(lambda: 1)
    made.offered(TryOutcome.ACCEPTED)
    made.executor_relaunched()
    made.executor_lost()
    return made


def executor() -> ExecutorMetrics:
    made = ExecutorMetrics()
    made.sample_disk_free(lambda: 10_000)
    made.stage_done(Stage.EXECUTION, TEST, 0.3)
    made.job_ended(JobState.FAILED, Fault.USER)
    made.adopted(Adoption.TAKEN_OVER)
    made.transferred(Direction.DOWN, 1000)
    return made


def worked(made: ServiceMetrics) -> ServiceMetrics:
    """Every event that services have in common."""
    made.refused(Refusal.SIGNATURE)
    made.reconnected(Peer.MINER)
    if isinstance(made, JobMetrics):
        made.stage(JobState.VOLUMES_READY, JobState.EXECUTION_DONE, TEST, 0.2)
        made.ended(JobState.COMPLETED, seconds=2)
        made.ended(JobState.FAILED, Fault.USER)
        made.lease_taken_over(2)
    return made


SERVICES = [facilitator, validator, miner, executor]


async def families(made: ServiceMetrics) -> dict[str, Metric]:
    """By name, as Prometheus reads them."""
    return {found.name: found for found in text_string_to_metric_families((await made.render()).decode())}


async def figure(made: ServiceMetrics, name: str, **labels: str) -> float | None:
    """One sample of the text, or None."""
    for family in (await families(made)).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


async def test_the_page_names_every_metric_and_no_other() -> None:
    told = dict(re.findall(r"^\| `([a-z_]+)`[^|]* \| ([FVME, ]+) \|", PAGE, re.MULTILINE))
    actual: dict[str, set[str]] = {}
    for service in SERVICES:
        for family in (await families(worked(service()))).values():
            if not family.name.startswith("process_"):
                name = family.name.removeprefix(f"compute_horde_{service.__name__}_")
                shown = name + ("_total" if family.type == "counter" else "")
                actual.setdefault(shown, set()).add(service.__name__[0].upper())
    assert {name: set(letters.split(", ")) for name, letters in told.items()} == actual


@pytest.mark.parametrize("service", SERVICES)
async def test_names_follow_one_rule(service: Callable[[], ServiceMetrics]) -> None:
    assert [
        name
        for name in await families(worked(service()))
        if not name.startswith("process_") and not NAME.fullmatch(name)
    ] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_no_series_tells_when_another_was_made(service: Callable[[], ServiceMetrics]) -> None:
    assert b"_created" not in await worked(service()).render()


async def test_figures_are_what_was_told() -> None:
    made = worked(facilitator())
    prefix = "compute_horde_facilitator_"
    assert await figure(made, prefix + "jobs", state="sent") == 2
    assert await figure(made, prefix + "database_bytes") == 4096
    assert await figure(made, prefix + "events_refused_total", reason="signature") == 1
    assert await figure(made, prefix + "leases_taken_over_total") == 2
    assert await figure(made, prefix + "jobs_ended_total", state="failed", fault="user") == 1
    assert await figure(made, prefix + "jobs_ended_total", state="completed", fault="none") == 1
    assert await figure(made, prefix + "job_duration_seconds_count", state="completed") == 1
    assert await figure(made, prefix + "logins_total", outcome="refused") == 1
    stage = {"stage": "execution", "executor_class": TEST.value}
    assert await figure(made, prefix + "stage_duration_seconds_bucket", **stage, le="0.1") == 0
    assert await figure(made, prefix + "stage_duration_seconds_bucket", **stage, le="0.25") == 1


async def test_the_other_services_count_too() -> None:
    prefix = "compute_horde_"
    assert await figure(miner(), prefix + "miner_executors", executor_class=TEST.value, state="free") == 3
    assert await figure(validator(), prefix + "validator_queue_age_seconds", executor_class=TEST.value) == 12.5
    attempt = {"outcome": "horde_failed", "fault": "miner"}
    assert await figure(validator(), prefix + "validator_attempts_total", **attempt) == 1
    assert await figure(executor(), prefix + "executor_transferred_bytes_total", direction="down") == 1000
    assert await figure(executor(), prefix + "executor_adoptions_total", outcome="taken_over") == 1


async def test_two_instances_in_one_process_count_apart() -> None:
    first, second = MinerMetrics(), MinerMetrics()
    first.executor_lost()
    assert await figure(first, "compute_horde_miner_executors_lost_total") == 1
    assert await figure(second, "compute_horde_miner_executors_lost_total") == 0


async def test_a_word_out_of_the_vocabulary_becomes_other() -> None:
    made = FacilitatorMetrics()
    made.sample_jobs(lambda: {("sent",): 1, ("5F-a-hotkey",): 2, ("a-uuid",): 3})
    assert await figure(made, "compute_horde_facilitator_jobs", state="other") == 5
    assert b"hotkey" not in await made.render()


def test_buckets_go_from_a_no_op_to_a_week() -> None:
    assert DURATION_BUCKETS[0] == 0.05
    assert DURATION_BUCKETS[-1] == 7 * 24 * 3600
    assert list(DURATION_BUCKETS) == sorted(set(DURATION_BUCKETS))


@pytest.mark.parametrize(
    ("left", "to", "stage"),
    [
        (JobState.SENT, JobState.RECEIVED, "hand_over"),
        (JobState.RECEIVED, JobState.QUEUED, "routing"),
        (JobState.QUEUED, JobState.ACCEPTED, "queue"),
        (JobState.ACCEPTED, JobState.EXECUTOR_READY, "executor_startup"),
        (JobState.EXECUTOR_READY, JobState.VOLUMES_READY, "volume_download"),
        (JobState.VOLUMES_READY, JobState.STREAMING_READY, "streaming_startup"),
        (JobState.VOLUMES_READY, JobState.EXECUTION_DONE, "execution"),
        (JobState.STREAMING_READY, JobState.EXECUTION_DONE, "execution"),
        (JobState.EXECUTION_DONE, JobState.COMPLETED, "result_upload"),
        (JobState.COMPLETED, JobState.COMPLETED, "other"),
    ],
)
def test_stages_are_named_after_the_state_that_is_left(left: JobState, to: JobState, stage: str) -> None:
    assert stage_between(left, to) == stage


def test_every_state_under_way_has_a_stage() -> None:
    assert {state for state in JobState if stage_between(state, JobState.FAILED) == "other"} == TERMINAL


async def broken() -> Reading:
    raise OSError("secret text")


async def stuck() -> Reading:
    await asyncio.Event().wait()
    return 0


@pytest.mark.parametrize("read", [broken, stuck])
async def test_a_figure_that_cannot_be_read_is_left_out(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "SAMPLE_LIMIT_S", 0.0 if read is stuck else 2.0)
    made = FacilitatorMetrics()
    made.sample_streams(read)
    made.sample_validators(lambda: 7)
    text = await made.render()
    assert b"compute_horde_facilitator_event_streams " not in text
    error = {"metric": "compute_horde_facilitator_event_streams"}
    assert await figure(made, "compute_horde_facilitator_sample_errors_total", **error) == 1
    assert b"secret text" not in text


async def test_an_old_figure_is_not_told_again() -> None:
    clock = Clock()
    made = FacilitatorMetrics(clock=clock)
    figures: list[float] = [3]
    made.sample_streams(figures.pop)
    assert b"event_streams 3.0" in await made.render()
    clock.now = 10
    assert b"event_streams 3.0" not in await made.render()


async def test_figures_are_read_once_a_second_however_many_ask() -> None:
    clock, reads = Clock(), 0

    async def read() -> Reading:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return reads

    made = FacilitatorMetrics(clock=clock)
    made.sample_streams(read)
    await asyncio.gather(*(made.render() for _ in range(5)))
    assert reads == 1
    clock.now = 1.0
    assert b"event_streams 2.0" in await made.render()


async def test_a_name_is_registered_once() -> None:
    made = facilitator()
    with pytest.raises(ValueError, match="Duplicated"):
        made.sample_streams(lambda: 0)
