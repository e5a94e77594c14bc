"""One file to one URL over HTTP, tried three times."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import httpx

from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.network import AddressRefused, without_query
from compute_horde.protocol.uploads import UploadResponse

PAUSES = (1.0, 2.0)
MAX_ANSWER_BYTES = 10 * 1024 * 1024
_TIMEOUT = httpx.Timeout(300, connect=10)
_CHUNK = 256 * 1024
_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


class Delivery(NamedTuple):
    """``form``: the fields of a multipart POST; None makes it a PUT."""

    url: str
    file: BinaryIO
    name: str
    form: Mapping[str, str] | None
    headers: Mapping[str, str]


def _forget(size: int) -> None:
    """Nobody counts."""


class Sender:
    """``pauses``: seconds before the second and third attempt. ``count``: told of the bytes of a file that was
    taken.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        pauses: tuple[float, ...] = PAUSES,
        count: Callable[[int], None] = _forget,
    ) -> None:
        self._client, self._pauses, self._count = client, pauses, count

    async def send(self, delivery: Delivery) -> UploadResponse:
        """:raises JobFailure: ``upload_refused``, ``upload_http_error``, ``upload_unreachable``."""
        shown = without_query(delivery.url)
        for pause in (*self._pauses, None):
            try:
                return await self._attempt(delivery)
            except JobFailure as failed:
                if pause is None or not _may_pass(failed):
                    raise
            except AddressRefused:
                raise failure("upload_refused", f"{shown} leads into a private network.") from None
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):
                text = f"Nothing can be sent to {shown}: the URL or a header is malformed."
                raise failure("upload_refused", text) from None
            except httpx.HTTPError as error:
                if pause is None:
                    text = f"{shown} did not take the upload ({type(error).__name__})."
                    raise failure("upload_unreachable", text) from None
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, delivery: Delivery) -> UploadResponse:
        method = "PUT" if delivery.form is None else "POST"
        async with self._client.stream(
            method, delivery.url, timeout=_TIMEOUT, follow_redirects=False, **_body(delivery)
        ) as response:
            if not response.is_success:
                status = response.status_code
                text = f"{without_query(delivery.url)} answered the upload with HTTP {status}."
                raise failure("upload_http_error", text, status=status)
            answer = UploadResponse(headers=dict(response.headers), body=await _answer(response))
        self._count(os.fstat(delivery.file.fileno()).st_size)
        return answer


def _may_pass(failed: JobFailure) -> bool:
    status = failed.problem.details.get("status")
    return isinstance(status, int) and status >= 500


def _body(delivery: Delivery) -> dict[str, Any]:
    headers = {name: value for name, value in delivery.headers.items() if name.lower() not in _OURS}
    if delivery.form is not None:
        delivery.file.seek(0)
        return {
            "headers": headers,
            "data": dict(delivery.form),
            "files": {"file": (delivery.name, delivery.file)},
        }
    size = os.fstat(delivery.file.fileno()).st_size
    headers["Content-Length"] = str(size)
    return {"headers": headers, "content": _chunks(delivery.file.fileno(), size)}


async def _chunks(descriptor: int, size: int) -> AsyncIterator[bytes]:
    sent = 0
    while sent < size:
        chunk = await asyncio.to_thread(os.pread, descriptor, min(_CHUNK, size - sent), sent)
        if not chunk:
            return
        sent += len(chunk)
        yield chunk


async def _answer(response: httpx.Response) -> str:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise failure("upload_http_error", f"An upload was answered with over {MAX_ANSWER_BYTES} bytes.")
    return body.decode("utf-8", "replace")
