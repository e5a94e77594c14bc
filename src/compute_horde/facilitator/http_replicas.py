"""``/replica/v0/``: what replicas of one facilitator ask each other. Not for clients."""

from litestar import Response, post
from litestar.params import FromPath

from compute_horde.facilitator.errors import NOT_FOUND, ApiError
from compute_horde.facilitator.http import AnyRequest, Desk, answer
from compute_horde.facilitator.replicas import PATH, QUESTION
from compute_horde.protocol.base import MalformedFrame, parse_frame


@post(PATH + "{link_id:str}/", status_code=200, include_in_schema=False)
async def ask_validator(link_id: FromPath[str], request: AnyRequest, desk: Desk) -> Response[bytes]:
    """Ask the validator on one of this replica's connections, and only on that."""
    desk.check_replica(request.headers.get("authorization"))
    try:
        question = parse_frame(QUESTION, await request.body())
    except MalformedFrame as error:
        raise ApiError(400, {"detail": str(error)}) from None
    found = await desk.ask_here(link_id, question)
    if found is None:
        raise ApiError(404, NOT_FOUND)
    return answer(found)
