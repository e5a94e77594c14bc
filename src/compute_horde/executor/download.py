"""One file over HTTP: bounded, resumed where the server can, tried three times."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import BinaryIO

import httpx

from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.network import AddressRefused, without_query

ATTEMPTS = 3
PAUSES = (1.0, 4.0)


class _TryAgain(Exception):  # noqa: N818
    """This attempt did not work out; another may. ``final``: what to say when there is none."""

    def __init__(self, final: JobFailure) -> None:
        self.final = final


class _Target:
    """The file, and the checksum of what is in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()

    @property
    def size(self) -> int:
        return self._file.tell()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()


def _forget(size: int) -> None:
    """Nobody counts."""


class Downloader:
    """``limit``: the largest body, in bytes. ``pauses``: seconds before the second and third attempt. ``count``:
    told of the bytes that come.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        limit: int,
        pauses: tuple[float, ...] = PAUSES,
        count: Callable[[int], None] = _forget,
    ) -> None:
        self._client, self._limit, self._pauses, self._count = client, limit, pauses, count

    async def fetch(self, url: str, file: BinaryIO, digest: str | None = None) -> None:
        """Write the body of ``url`` to ``file``, which is empty. ``digest``: the SHA-256 it must have, in hex.

        :raises JobFailure: ``download_http_error``, ``download_unreachable``, ``download_refused``,
            ``volume_too_large``, ``download_checksum``.
        """
        target = _Target(file)
        await self._fetch(url, target)
        if digest is not None and target.digest != digest:
            text = f"What {without_query(url)} sent has another SHA-256 than the job names."
            raise failure("download_checksum", text, expected=digest, actual=target.digest)

    async def _fetch(self, url: str, file: _Target) -> None:
        for pause in (*self._pauses, None):
            try:
                return await self._attempt(url, file)
            except _TryAgain as again:
                if pause is None:
                    raise again.final from None
            await asyncio.sleep(pause)
        return None

    async def _attempt(self, url: str, file: _Target) -> None:
        shown = without_query(url)
        try:
            await self._receive(url, file)
        except AddressRefused:
            text = f"{shown} leads into a private network."
            raise failure("download_refused", text) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):
            raise failure("download_refused", f"{shown} is not an http or https URL.") from None
        except httpx.TooManyRedirects:
            raise failure("download_http_error", f"{shown} redirects too often.") from None
        except httpx.HTTPError as error:
            text = f"{shown} did not answer ({type(error).__name__})."
            raise _TryAgain(failure("download_unreachable", text)) from None

    async def _receive(self, url: str, file: _Target) -> None:
        start = file.size
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        async with self._client.stream("GET", url, headers=headers, follow_redirects=True) as response:
            if start and not _continues(response, start):
                file.restart()
                if response.status_code in (206, 416):
                    raise _TryAgain(_status_failure(url, response))
            if not response.is_success:
                raise _judge(url, response)
            await self._store(response, file)

    async def _store(self, response: httpx.Response, file: _Target) -> None:
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        declared = response.headers.get("Content-Length", "")
        if not encoded and declared.isascii() and declared.isdigit() and file.size + int(declared) > self._limit:
            raise self._too_large()
        try:
            async for chunk in response.aiter_bytes():
                self._count(len(chunk))
                if file.size + len(chunk) > self._limit:
                    raise self._too_large()
                file.write(chunk)
        except httpx.HTTPError:
            if encoded:
                file.restart()
            raise

    def _too_large(self) -> JobFailure:
        text = f"A download is larger than {self._limit} bytes."
        return failure("volume_too_large", text, limit=self._limit)


def _continues(response: httpx.Response, start: int) -> bool:
    content_range: str = response.headers.get("Content-Range", "")
    return response.status_code == 206 and content_range.startswith(f"bytes {start}-")


def _judge(url: str, response: httpx.Response) -> Exception:
    failed = _status_failure(url, response)
    return _TryAgain(failed) if response.status_code >= 500 or response.status_code == 429 else failed


def _status_failure(url: str, response: httpx.Response) -> JobFailure:
    status = response.status_code
    return failure("download_http_error", f"{without_query(url)} answered HTTP {status}.", status=status)
