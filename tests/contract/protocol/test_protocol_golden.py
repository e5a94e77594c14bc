"""One golden frame for every message of the four links, byte for byte both ways."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from compute_horde.protocol import facilitator_validator as fv
from compute_horde.protocol import miner_executor as me
from compute_horde.protocol import receipts, sdk_facilitator, validator_miner
from compute_horde.protocol.base import MalformedFrame, Message, parse_frame
from compute_horde.protocol.explanation import Explanation

GOLDEN = Path(__file__).parent / "golden"
LINKS: dict[str, TypeAdapter[Any]] = {
    "validator_to_facilitator": fv.VALIDATOR_TO_FACILITATOR,
    "facilitator_to_validator": fv.FACILITATOR_TO_VALIDATOR,
    "validator_to_miner": validator_miner.VALIDATOR_TO_MINER,
    "miner_to_validator": validator_miner.MINER_TO_VALIDATOR,
    "miner_to_executor": me.MINER_TO_EXECUTOR,
    "executor_to_miner": me.EXECUTOR_TO_MINER,
    "receipts": receipts.RECEIPT_PAYLOAD,
}
UNIONS: dict[str, Any] = {
    "validator_to_facilitator": fv.ValidatorToFacilitator,
    "facilitator_to_validator": fv.FacilitatorToValidator,
    "validator_to_miner": validator_miner.ValidatorToMiner,
    "miner_to_validator": validator_miner.MinerToValidator,
    "miner_to_executor": me.MinerToExecutor,
    "executor_to_miner": me.ExecutorToMiner,
    "receipts": receipts.ReceiptPayload,
}
HTTP = (
    sdk_facilitator.NonceResponse,
    sdk_facilitator.LoginRequest,
    sdk_facilitator.LoginResponse,
    sdk_facilitator.JobRequest,
    sdk_facilitator.Job,
    sdk_facilitator.JobPage,
    sdk_facilitator.CheatReport,
    sdk_facilitator.Feedback,
    sdk_facilitator.JobEvent,
    sdk_facilitator.JobQueueEvent,
    Explanation,
    sdk_facilitator.JobLogs,
    sdk_facilitator.JobLogsEnd,
    receipts.Receipt,
)


def members(union: Any) -> list[type[Message]]:
    """The classes behind an annotated, possibly tagged, union."""
    if isinstance(union, type) and issubclass(union, BaseModel):
        return [union] if issubclass(union, Message) else []
    return [member for part in get_args(union) for member in members(part)]


SOCKET_CASES = [
    pytest.param(link, kind, id=f"{link}.{kind.__name__}")
    for link, union in UNIONS.items()
    for kind in members(union)
]
HTTP_CASES = [pytest.param(kind, id=kind.__name__) for kind in HTTP]


@pytest.mark.parametrize(("link", "kind"), SOCKET_CASES)
def test_a_frame_of_a_link_is_read_and_written_as_it_always_was(link: str, kind: type[Message]) -> None:
    golden = (GOLDEN / f"{link}.{kind.__name__}.json").read_text().rstrip("\n")
    message = parse_frame(LINKS[link], golden)
    assert type(message) is kind
    assert message.to_frame() == golden
    assert kind.model_validate_json(golden) == message


@pytest.mark.parametrize("kind", HTTP_CASES)
def test_a_body_of_http_is_read_and_written_as_it_always_was(kind: type[Message]) -> None:
    golden = (GOLDEN / f"http.{kind.__name__}.json").read_text().rstrip("\n")
    message = kind.model_validate_json(golden)
    assert message.to_frame() == golden


def test_every_golden_file_belongs_to_a_message() -> None:
    wanted = {f"{link}.{kind.__name__}.json" for link, union in UNIONS.items() for kind in members(union)}
    wanted |= {f"http.{kind.__name__}.json" for kind in HTTP}
    assert {path.name for path in GOLDEN.iterdir()} == wanted


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("frame", ["", "{", "[]", "null", '"text"', "{}", '{"message_type": "V9New"}', "\ud800"])
def test_a_frame_that_is_no_message_is_malformed(link: str, frame: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        parse_frame(LINKS[link], frame)
    assert str(caught.value)
    assert all(set(error) == {"type", "loc", "msg"} for error in caught.value.for_peer())


def test_a_malformed_frame_without_details_still_says_something() -> None:
    assert str(MalformedFrame([])) == "frame: malformed"


@pytest.mark.parametrize("link", ["validator_to_facilitator", "facilitator_to_validator"])
def test_the_facilitators_link_refuses_unknown_keys_and_the_miners_ignores_them(link: str) -> None:
    ours = {  # free to grow
        "V0CancelJobRequest",
        "V0JobLogsRequest",
        "V0JobLogsResponse",
        "V0QueueUpdate",
        "V0ExplainJobRequest",
        "V0ExplainJobResponse",
    }
    for path in GOLDEN.glob(f"{link}.*.json"):
        if path.name.split(".")[1] in ours:
            continue
        with pytest.raises(MalformedFrame):
            parse_frame(LINKS[link], path.read_text().rstrip("\n")[:-1] + ',"new_key":1}')
    for path in GOLDEN.glob("miner_to_validator.*.json"):
        parse_frame(LINKS["miner_to_validator"], path.read_text().rstrip("\n")[:-1] + ',"new_key":1}')
