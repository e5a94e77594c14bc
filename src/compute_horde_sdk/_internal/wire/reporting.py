"""Cheat reports (PROTOCOL.md 2.8): made once, though sent until they are answered."""

from collections.abc import Mapping

from compute_horde_sdk._internal.wire.answers import Confirmation, error_of, parse_answer
from compute_horde_sdk._internal.wire.http import AnswerLost, Facilitator, Request

REPORT_PATH = "/api/v1/cheated-job/"
KNOWN_ALREADY = "already exists"
CONFIRMED = "Job reported as cheated"


async def send_report(facilitator: Facilitator, content: bytes, headers: Mapping[str, str]) -> str:
    """The confirmation. When an earlier try's answer was lost, a report that exists already is that one.

    :raises ComputeHordeError: refused (reported before, for one), or out of reach.
    """
    try:
        answer = await facilitator.exchange(Request("POST", REPORT_PATH, content=content, headers=headers))
    except AnswerLost as lost:
        raise lost.error from lost.error.__cause__
    if answer.response.is_success:
        return parse_answer(Confirmation, answer.response).message
    error = error_of(answer.response)
    if answer.lost and answer.response.status_code == 400 and KNOWN_ALREADY in error.message:
        return CONFIRMED
    raise error
