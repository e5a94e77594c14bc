"""Ours, on every WebSocket: cancel a job, read its output while it runs. Only to peers that announced it.

Both travel down from the facilitator to the executor unchanged; output travels up. Output is asked for piece by
piece: one request, one answer, at the latest after :data:`LOGS_HOLD_SECONDS`. So no hop holds more than the
answers that were asked of it, and whoever lost a connection asks again from where it was.
"""

from typing import Literal

from pydantic import Field

from compute_horde.protocol.base import Message

LOGS_HOLD_SECONDS = 20
"""How long an executor may keep a request for output waiting for something to be printed."""

LOGS_PIECE_CHARS = 64 * 1024
"""Most characters of output in one answer."""

MAX_LOGS_FRAME_BYTES = 1024 * 1024
"""A larger answer is dropped by whoever receives it."""

MAX_LOGS_WAITING = 16
"""Requests for one job's output that a hop holds at a time; the oldest is answered when there is one more."""


class V0CancelJobRequest(Message):
    """Downwards. The job ends as failed with the code ``cancelled``; sent again it changes nothing.

    A job that the receiver does not know, or that has ended, is left as it is; nothing is answered.
    """

    message_type: Literal["V0CancelJobRequest"] = "V0CancelJobRequest"
    job_uuid: str


class V0JobLogsRequest(Message):
    """Downwards. What was printed behind ``position``; 0 is the beginning. ``request_id`` comes back."""

    message_type: Literal["V0JobLogsRequest"] = "V0JobLogsRequest"
    job_uuid: str
    request_id: str = Field(min_length=1, max_length=64)
    position: int = Field(ge=0, lt=2**53)


LogsState = Literal["more", "ended", "unavailable"]


class LogPiece(Message):
    """Text of one stream, as it was printed. ``offset``: how many characters of that stream came before."""

    stream: Literal["stdout", "stderr"]
    offset: int = Field(ge=0, lt=2**53)
    text: str


class V0JobLogsResponse(Message):
    """Upwards, the answer to one request.

    * ``state``: ``more`` may come, ``ended`` when the job will print nothing more, ``unavailable`` when nobody can
      tell now (the executor is not there yet, or a peer on the way does not know of it)
    * ``position``: what to ask behind next
    * ``pieces``: in the order in which they were printed; a gap in a stream's offsets is output that was too
      much to keep
    """

    message_type: Literal["V0JobLogsResponse"] = "V0JobLogsResponse"
    job_uuid: str
    request_id: str = Field(min_length=1, max_length=64)
    state: LogsState
    position: int = Field(ge=0, lt=2**53)
    pieces: list[LogPiece] = Field(default_factory=list)


def empty_answer(request: V0JobLogsRequest, state: LogsState) -> V0JobLogsResponse:
    """An answer without output; whoever asked may ask again from the same place."""
    return V0JobLogsResponse(
        job_uuid=request.job_uuid, request_id=request.request_id, state=state, position=request.position
    )
