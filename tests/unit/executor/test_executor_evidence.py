"""Hashes of outputs, in a folder that somebody hostile has filled; and checksums of inputs."""

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compute_horde.executor import evidence, outputs
from compute_horde.executor.download import Downloader
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.evidence import Hashes, Hashing, hash_folder
from compute_horde.executor.patience import in_thread
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.volumes import VolumeLoader
from compute_horde.protocol.volumes import SingleFileVolume

DATA = b"the input"
RIGHT = hashlib.sha256(DATA).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hashed(folder: Path) -> Hashes:
    return hash_folder(folder, threading.Event())


def test_regular_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/big").write_bytes(b"x" * 600_000)
    assert hashed(tmp_path) == ({"a": sha256(b""), "d/e/big": sha256(b"x" * 600_000)}, [])


def test_links_devices_and_our_own_logs_are_passed_over_and_odd_names_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"odd")
    for name in ("stdout.txt", "stderr.txt", "good"):
        (tmp_path / name).write_bytes(b"x")
    assert hashed(tmp_path) == (
        {"good": sha256(b"x")},
        ["Not hashed, since they cannot be read: '?'."],
    )


def test_too_many_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_FILES", 2)
    monkeypatch.setattr(evidence, "_SHOWN", 2)
    for name in "abcdef":
        (tmp_path / name).touch()
    found = hashed(tmp_path)
    assert list(found.by_path) == ["a", "b"]
    assert found.notices == ["Not hashed, since only 2 files are: 'c', 'd' and 2 more."]
    monkeypatch.setattr(evidence, "_COUNTED", 3)
    assert hashed(tmp_path).notices == ["Not hashed, since only 2 files are: 'c', 'd' and over 1 more."]


def test_paths_that_are_too_long_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_PATH_CHARS", 10)
    for name in ("a" * 6, "b" * 6):
        (tmp_path / name).touch()
    found = hashed(tmp_path)
    assert list(found.by_path) == ["aaaaaa"]
    assert found.notices == ["Not hashed, since all paths together are too long: 'bbbbbb'."]


class Ticking(threading.Event):
    """Is set after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_when_the_time_is_over_the_rest_is_named(tmp_path: Path, looks: int) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    found = hash_folder(tmp_path, Ticking(looks))
    done = ["a"] if looks >= 2 else []
    left = "'b'" if done else "'a', 'b'"
    assert list(found.by_path) == done
    assert found.notices == [f"Not hashed, since the time for uploads was over: {left}."]


def test_a_folder_that_cannot_be_read_is_told() -> None:
    assert hashed(Path("/no/such/folder")) == (
        {},
        ["Not hashed, since the folder of the outputs cannot be read: No such file or directory."],
    )


def test_folders_are_not_entered_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_NOTICES", 2)
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    found = hash_folder(tmp_path, Ticking(2))  # enough for the first folder and its file
    assert list(found.by_path) == ["a/file"]
    assert found.notices == [f"The output '{name}' was left out: the time was over." for name in "bc"]


async def test_hashing_stops_where_it_is_when_its_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert (await Hashing(tmp_path).result(10)).by_path == {"a": sha256(b"x")}
    found = await Hashing(tmp_path).result(0)
    assert found.by_path or found.notices


async def test_hashing_that_is_given_up_has_ended() -> None:
    failing = Hashing(Path("/no/such/folder"))
    await asyncio.sleep(0.01)
    await failing.close()
    hashing = Hashing(Path("/no/such/folder"))
    await hashing.close()
    await hashing.close()


async def test_a_cancelled_thread_is_told_and_waited_for() -> None:
    stop, ended = threading.Event(), threading.Event()

    def work() -> None:
        stop.wait(10)
        ended.set()
        raise OSError("nobody hears it")

    working = asyncio.create_task(in_thread(stop, work))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert ended.is_set()


# checksums


async def load(folder: Path, fragment: str, *answers: httpx.Response) -> list[httpx.Request]:
    """Load one file; the requests that were sent."""
    seen, waiting = list[httpx.Request](), list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return waiting.pop(0) if waiting else httpx.Response(200, content=DATA)

    volume = SingleFileVolume(url=f"http://host/file?q=secret{fragment}", relative_path="d/file")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await VolumeLoader(ExecutorSettings(work_dir=folder), client, folder, folder).load(volume)
    return seen


@pytest.mark.parametrize(
    "fragment", ["", "#", f"#sha256={RIGHT}", f"#sha256={RIGHT.upper()}", "#sha512=x", "#top"]
)
async def test_the_right_file_is_taken_and_no_fragment_sent(tmp_path: Path, fragment: str) -> None:
    (request,) = await load(tmp_path, fragment)
    assert str(request.url) == "http://host/file?q=secret"
    assert (tmp_path / "d/file").read_bytes() == DATA


async def refused(folder: Path, fragment: str, *answers: httpx.Response) -> Any:
    with pytest.raises(JobFailure) as caught:
        await load(folder, fragment, *answers)
    assert "secret" not in caught.value.problem.to_frame()
    assert not (folder / "d/file").exists()
    return caught.value.problem


async def test_another_file_than_the_one_that_was_named(tmp_path: Path) -> None:
    found = await refused(tmp_path, f"#sha256={'0' * 64}")
    assert found.code == "download_checksum"
    assert found.details == {"expected": "0" * 64, "actual": RIGHT}
    assert (await refused(tmp_path, f"#sha256={RIGHT}", httpx.Response(200))).code == "download_checksum"


@pytest.mark.parametrize("digest", ["", "0", "g" * 64, f"{RIGHT}0", f"{RIGHT}&sha256={RIGHT}", "\u0661" * 64])
async def test_a_checksum_that_is_none(tmp_path: Path, digest: str) -> None:
    assert (await refused(tmp_path, f"#sha256={digest}")).code == "volume_invalid"


async def test_a_file_that_is_not_there_leaves_none(tmp_path: Path) -> None:
    assert (await refused(tmp_path, "", httpx.Response(404))).code == "download_http_error"


@pytest.mark.parametrize(
    "second",
    [
        httpx.Response(206, headers={"Content-Range": "bytes 3-8/9"}, content=DATA[3:]),
        httpx.Response(200, content=DATA),
    ],
)
async def test_the_checksum_covers_a_download_that_was_resumed(second: httpx.Response) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA[:3]
        raise httpx.ReadError("broken")

    waiting = [httpx.Response(200, content=broken()), second]
    file = io.BytesIO()
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: waiting.pop(0))) as client:
        await Downloader(client, 100, (0.0, 0.0)).fetch("http://host/", file, RIGHT)
    assert file.getvalue() == DATA
