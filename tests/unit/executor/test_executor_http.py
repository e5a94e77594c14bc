"""Downloads and uploads over a transport that is a function."""

import asyncio
import io
import ipaddress
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from compute_horde.executor.download import Downloader
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.network import Web, is_public, without_query
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.uploads import Uploader
from compute_horde.protocol.uploads import OutputUpload

Answer = Callable[[httpx.Request], httpx.Response]
UPLOAD: TypeAdapter[OutputUpload] = TypeAdapter(OutputUpload)
NO_PAUSES = (0.0, 0.0)
URL = "http://user:pass@host/file?token=secret"


def client(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def script(*answers: httpx.Response | Exception) -> tuple[Answer, list[httpx.Request]]:
    """Answers in order, and the requests that came."""
    waiting, seen = list(answers), list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        item = waiting.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    return answer, seen


async def breaks_off(data: bytes) -> AsyncIterator[bytes]:
    yield data
    raise httpx.ReadError("broken")


async def fetch(*answers: httpx.Response | Exception, limit: int = 100) -> tuple[bytes, list[httpx.Request]]:
    answer, seen = script(*answers)
    file = io.BytesIO()
    async with client(answer) as opened:
        await Downloader(opened, limit, NO_PAUSES).fetch(URL, file)
    return file.getvalue(), seen


async def refused(*answers: httpx.Response | Exception, limit: int = 100) -> Any:
    with pytest.raises(JobFailure) as caught:
        await fetch(*answers, limit=limit)
    assert "secret" not in caught.value.problem.to_frame()
    assert "pass" not in caught.value.problem.to_frame()
    return caught.value.problem


async def test_a_download() -> None:
    body, seen = await fetch(httpx.Response(200, content=b"hello"))
    assert body == b"hello"
    assert seen[0].headers["Accept-Encoding"] == "identity"


async def test_a_download_follows_redirects() -> None:
    moved = httpx.Response(302, headers={"Location": "http://other/"})
    body, seen = await fetch(moved, httpx.Response(200, content=b"there"))
    assert (body, str(seen[1].url)) == (b"there", "http://other/")


async def test_a_broken_download_is_resumed() -> None:
    rest = httpx.Response(206, headers={"Content-Range": "bytes 3-5/6"}, content=b"def")
    body, seen = await fetch(httpx.Response(200, content=breaks_off(b"abc")), rest)
    assert body == b"abcdef"
    assert seen[1].headers["Range"] == "bytes=3-"


async def test_a_broken_download_starts_again_where_the_server_cannot_resume() -> None:
    body, _ = await fetch(httpx.Response(200, content=breaks_off(b"abc")), httpx.Response(200, content=b"abcdef"))
    assert body == b"abcdef"
    body, _ = await fetch(
        httpx.Response(200, content=breaks_off(b"abc")), httpx.Response(416), httpx.Response(200, content=b"new")
    )
    assert body == b"new"


async def test_a_404_is_not_tried_again() -> None:
    problem = await refused(httpx.Response(404))
    assert (problem.code, problem.details) == ("download_http_error", {"status": 404})


async def test_a_500_is_tried_three_times() -> None:
    body, _ = await fetch(httpx.Response(500), httpx.Response(503), httpx.Response(200, content=b"x"))
    assert body == b"x"
    assert (await refused(*[httpx.Response(502)] * 3)).code == "download_http_error"


async def test_a_refused_connection_is_tried_three_times() -> None:
    assert (await refused(*[httpx.ConnectError("refused")] * 3)).code == "download_unreachable"


async def test_a_body_larger_than_allowed() -> None:
    assert (await refused(httpx.Response(200, content=bytes(101)))).code == "volume_too_large"
    flood = httpx.Response(200, content=breaks_off(bytes(101)))
    assert (await refused(flood)).code == "volume_too_large"


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/passwd", "nonsense", "http://host:port/"])
async def test_urls_that_are_not_http(url: str) -> None:
    async with httpx.AsyncClient() as opened:
        with pytest.raises(JobFailure) as caught:
            await Downloader(opened, 10, NO_PAUSES).fetch(url, io.BytesIO())
    assert caught.value.problem.code == "download_refused"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433", "0.0.0.0"])
async def test_private_networks_are_refused(host: str) -> None:
    async with Web(ExecutorSettings())() as opened:
        with pytest.raises(JobFailure) as caught:
            await Downloader(opened, 10, NO_PAUSES).fetch(f"http://{host}:9/", io.BytesIO())
    assert caught.value.problem.code == "download_refused"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_what_is_shown_of_a_url() -> None:
    assert without_query(URL) == "http://host/file"
    assert without_query("http://host:port/") == "the URL"


class Outputs:
    """An output folder and an uploader of it."""

    def __init__(self, root: Path) -> None:
        self.folder, self.transfer = root / "output", root / "transfer"
        self.folder.mkdir()
        self.transfer.mkdir()
        self.settings = ExecutorSettings(output_max_bytes=1000, output_zip_entries=3)
        self.notices: list[str] = []

    async def upload(self, wanted: dict[str, Any], answer: Answer) -> dict[str, Any]:
        uploader = Uploader(self.settings, lambda: client(answer), self.folder, self.transfer, NO_PAUSES)
        results = await uploader.upload(UPLOAD.validate_python(wanted))
        self.notices = uploader.notices
        return {key: json.loads(value) for key, value in results.items()}

    async def refused(self, wanted: dict[str, Any], answer: Answer) -> str:
        with pytest.raises(JobFailure) as caught:
            await self.upload(wanted, answer)
        assert "secret" not in caught.value.problem.to_frame()
        return caught.value.problem.code


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path)


def put(path: str, url: str = URL, **more: Any) -> dict[str, Any]:
    return {"output_upload_type": "single_file_put", "url": url, "relative_path": path, **more}


async def test_a_put_is_tried_again_with_the_whole_file(outputs: Outputs) -> None:
    (outputs.folder / "a").write_bytes(b"data")
    answer, seen = script(httpx.Response(500), httpx.ConnectError("x"), httpx.Response(200, text="ok"))
    bodies: list[bytes] = []

    async def reading(request: httpx.Request) -> httpx.Response:
        bodies.append(await request.aread())
        return answer(request)

    results = await outputs.upload(put("a"), reading)  # type: ignore[arg-type] # an async answer is one, too
    assert results["a"]["body"] == "ok"
    assert bodies == [b"data"] * 3
    assert seen[0].headers["Content-Length"] == "4"


async def test_a_post_is_tried_again_with_the_whole_file(outputs: Outputs) -> None:
    (outputs.folder / "a").write_bytes(b"data")
    answer, seen = script(httpx.Response(500), httpx.Response(200))
    wanted = {"output_upload_type": "single_file_post", "url": URL, "relative_path": "a"}
    await outputs.upload(wanted, answer)
    assert all(b'name="file"; filename="a"' in request.content for request in seen)
    assert all(b"data" in request.content for request in seen)


async def test_a_403_is_not_tried_again(outputs: Outputs) -> None:
    (outputs.folder / "a").touch()
    answer, seen = script(httpx.Response(403))
    assert await outputs.refused(put("a"), answer) == "upload_http_error"
    assert len(seen) == 1


async def test_targets_that_cannot_be_used(outputs: Outputs) -> None:
    (outputs.folder / "a").touch()
    answer, _ = script(*[httpx.ConnectError("no")] * 3)
    assert await outputs.refused(put("a"), answer) == "upload_unreachable"
    answer, _ = script(httpx.Response(302, headers={"Location": "http://other"}))
    assert await outputs.refused(put("a"), answer) == "upload_http_error"
    answer, _ = script(httpx.Response(200, content=bytes(10 * 2**20 + 1)))
    assert await outputs.refused(put("a"), answer) == "upload_http_error"
    assert await outputs.refused(put("a", signed_headers={"X": "ünïcode"}), answer) == "upload_refused"


async def test_nothing_is_sent_unless_every_output_is_there(outputs: Outputs) -> None:
    (outputs.folder / "a").touch()
    (outputs.folder / "link").symlink_to("/etc")
    os.mkfifo(outputs.folder / "fifo")
    (outputs.folder / "large").write_bytes(bytes(1001))
    answer, seen = script()
    for path, code in [
        ("b", "output_missing"),
        ("a/b", "output_invalid"),
        ("link/passwd", "output_invalid"),
        ("link", "output_invalid"),
        ("fifo", "output_invalid"),
        ("large", "output_too_large"),
    ]:
        wanted = {"output_upload_type": "multi_upload", "uploads": [put("a"), put(path)]}
        assert await outputs.refused(wanted, answer) == code, path
    assert seen == []


async def test_one_failed_upload_stops_the_rest(outputs: Outputs) -> None:
    for name in "abcdef":
        (outputs.folder / name).touch()
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) > 1:
            await asyncio.Event().wait()
        return httpx.Response(403)

    wanted = {"output_upload_type": "multi_upload", "uploads": [put(name) for name in "abcdef"]}
    assert await outputs.refused(wanted, answer) == "upload_http_error"  # type: ignore[arg-type] # async, too
    assert len(seen) < 6


async def test_an_archive_of_the_outputs(outputs: Outputs) -> None:
    (outputs.folder / "d").mkdir()
    (outputs.folder / "d/a").write_bytes(b"a")
    (outputs.folder / "link").symlink_to("/etc/passwd")
    answer, seen = script(httpx.Response(200), httpx.Response(200))
    assert list(await outputs.upload({"output_upload_type": "zip_and_http_put", "url": URL}, answer)) == [
        "output.zip"
    ]
    assert outputs.notices == ["The output 'link' was left out: only regular files are taken."]
    post = {"output_upload_type": "zip_and_http_post", "url": URL, "form_fields": {"k": "v"}}
    await outputs.upload(post, answer)
    assert b'filename="output.zip"' in seen[1].content


async def test_an_archive_that_is_too_large(outputs: Outputs) -> None:
    wanted = {"output_upload_type": "zip_and_http_put", "url": URL}
    answer, _ = script()
    (outputs.folder / "big").write_bytes(os.urandom(2000))
    assert await outputs.refused(wanted, answer) == "output_too_large"
    (outputs.folder / "big").unlink()
    for name in "abcd":
        (outputs.folder / name).touch()
    assert await outputs.refused(wanted, answer) == "output_too_large"
