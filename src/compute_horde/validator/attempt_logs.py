"""Requests for output at the edge to miners: there an attempt has a name and positions of its own. Pure.

A job's positions go on from attempt to attempt, so that whoever follows its output goes on with the next attempt's
beginning: the upper bits of a position are the number of attempts before.
"""

from compute_horde.protocol.control import V0JobLogsRequest, V0JobLogsResponse
from compute_horde.protocol.scheduling import attempt_uuid

_BITS = 48  # 2**48 bytes of output, and ten attempts: below the protocol's 2**53
_MASK = (1 << _BITS) - 1


def asked_of_attempt(request: V0JobLogsRequest, attempt: int) -> V0JobLogsRequest:
    """The request as the attempt's miner knows it; a position in an earlier attempt means the beginning."""
    if attempt == 1:
        return request
    position = request.position & _MASK if request.position >> _BITS == attempt - 1 else 0
    name = attempt_uuid(request.job_uuid, attempt)
    return request.model_copy(update={"job_uuid": name, "position": position})


def answered_of_attempt(response: V0JobLogsResponse, job_uuid: str, attempt: int) -> V0JobLogsResponse:
    """The answer as whoever asked knows it."""
    if attempt == 1:
        return response
    position = ((attempt - 1) << _BITS) | min(response.position, _MASK)
    return response.model_copy(update={"job_uuid": job_uuid, "position": position})
