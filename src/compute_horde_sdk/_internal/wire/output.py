"""What a running job prints, followed over HTTP (ours)."""

from collections.abc import AsyncIterator

from compute_horde.protocol.extensions import Extension
from compute_horde.protocol.sdk_facilitator import JobLogs
from compute_horde_sdk._internal.port import OutputPiece
from compute_horde_sdk._internal.wire.http import Facilitator
from compute_horde_sdk._internal.wire.sse import SSEParser
from compute_horde_sdk._internal.wiring import Wiring


async def follow_output(facilitator: Facilitator, wiring: Wiring, job_uuid: str) -> AsyncIterator[OutputPiece]:
    """See :meth:`Horde.output <compute_horde_sdk._internal.port.Horde.output>`."""
    if Extension.LOGS not in await facilitator.extensions():
        return
    parser = SSEParser()
    async with facilitator.stream(f"/api/v1/jobs/{job_uuid}/logs/", "") as response:
        async for chunk in response.aiter_bytes():
            for event in parser.feed(chunk):
                if event.event == "end":
                    return
                for piece in JobLogs.model_validate_json(event.data).pieces:
                    yield OutputPiece(piece.stream, piece.offset, piece.text)
