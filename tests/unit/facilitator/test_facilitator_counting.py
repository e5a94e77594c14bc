"""What a job is counted as."""

import pytest

from compute_horde.facilitator import counting
from compute_horde.facilitator.counting import Counting, class_in, fault_of
from compute_horde.facilitator.store import HEAD_CHARACTERS, JobStore
from compute_horde.protocol.details import RejectionDetails, StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, Fault, Participant, RejectionReason
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.storage.database import Database
from compute_horde.telemetry.facilitator import FacilitatorMetrics

LLM = ExecutorClass.always_on__llm__a6000


def test_the_class_is_in_the_beginning_of_every_request() -> None:
    request = JobRequest(
        target_validator_hotkey="\x01" * 64,  # six characters each as JSON
        executor_class=LLM,
        docker_image="a" * 255,
        args=['"executor_class":"always_on.test"'],
        download_time_limit=1,
        execution_time_limit=1,
        streaming_start_time_limit=1,
        upload_time_limit=1,
    )
    assert class_in(request.model_dump_json()[:HEAD_CHARACTERS]) is LLM


@pytest.mark.parametrize(
    "text", ["", '{"executor_class":"of another release"}', '"executor_class\\":\\"always_on.test']
)
def test_a_class_that_is_not_known(text: str) -> None:
    assert class_in(text) is None


def test_the_fault_of_a_rejection() -> None:
    rejection = RejectionDetails(rejected_by=Participant.MINER, reason=RejectionReason.BUSY, message="busy")
    assert fault_of(StatusMetadata(job_rejection_details=rejection)) is Fault.NOBODY
    assert fault_of(StatusMetadata()) is None
    assert fault_of(None) is None


async def test_so_many_classes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "KNOWN_CLASSES", 2)
    database = Database("sqlite:///:memory:")
    kept = Counting(FacilitatorMetrics(), JobStore(database))
    for uuid in ("a", "b", "c"):
        kept.created(uuid, LLM)
    assert list(kept._classes) == ["b", "c"]
    await database.close()
