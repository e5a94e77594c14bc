"""An answer's body, read whole but not without a limit."""

import httpx

from compute_horde_sdk._internal.exceptions import ComputeHordeResponseError

TOO_LARGE = "response_too_large"
_OF_THE_TRANSFER = frozenset({"content-encoding", "content-length", "transfer-encoding"})


async def read_whole(response: httpx.Response, limit: int) -> httpx.Response:
    """The same answer with its body in memory, unpacked; the connection is given back.

    :raises ComputeHordeResponseError: larger than ``limit`` bytes once unpacked.
    """
    chunks, size = [], 0
    try:
        async for chunk in response.aiter_bytes(64 * 1024):
            size += len(chunk)
            if size > limit:
                raise ComputeHordeResponseError(
                    f"the facilitator's answer is larger than {limit} bytes",
                    status_code=response.status_code,
                    code=TOO_LARGE,
                )
            chunks.append(chunk)
    finally:
        await response.aclose()
    kept = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_TRANSFER]
    return httpx.Response(response.status_code, headers=kept, content=b"".join(chunks))
