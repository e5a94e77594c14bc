"""Folders that a hostile job has filled, and what is kept of its output."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from compute_horde.executor import confined, disk, folders
from compute_horde.executor.artifacts import collect
from compute_horde.executor.disk import tree_bytes
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.folders import JobFolders
from compute_horde.executor.logs import RESULT_CHARS, JobLog
from compute_horde.executor.printed import Printed
from compute_horde.executor.results import last_message
from compute_horde.executor.runtime import STDERR, STDOUT, RunningContainer
from compute_horde.protocol.base import MAX_MINER_FRAME_BYTES
from compute_horde.protocol.validator_miner import V0JobFinishedRequest


def deep(root: Path, levels: int) -> None:
    """Nest folders beyond what a path can name."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 50, dir_fd=here)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_a_tree_deeper_than_any_path_is_deleted(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    target.mkdir()
    deep(target, 1500)
    (target / "file").touch()
    (target / "link").symlink_to(tmp_path)
    confined.remove_tree(target)
    assert list(tmp_path.iterdir()) == []
    confined.remove_tree(target)


def test_a_tree_too_deep_to_count_counts_as_boundless(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    assert 10_000 <= tree_bytes(tmp_path) < 40_000
    deep(tmp_path, 100)
    assert tree_bytes(tmp_path) > 1 << 60
    confined.remove_tree(tmp_path)


@pytest.mark.parametrize("above", [False, True])
def test_a_link_that_a_job_puts_in_a_folders_place_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: bool
) -> None:
    """It could lead anywhere on the machine, and nobody would watch the disk while all of that is counted."""
    machine, output = tmp_path / "machine", tmp_path / "output"
    for root in (machine, output):
        (root / "folder" / "inner").mkdir(parents=True)
    (machine / "folder" / "inner" / "file").write_bytes(bytes(1_000_000))
    scan, scanned = os.scandir, 0

    def swap() -> None:
        (output / "folder").rename(output / "was")
        (output / "folder").symlink_to(machine / "folder")

    def swapping(folder: Any) -> Any:
        nonlocal scanned
        scanned += 1
        if scanned == 2 and not above:
            swap()
        entries = scan(folder)
        if scanned == 2 and above:
            swap()
        return entries

    monkeypatch.setattr(os, "scandir", swapping)
    assert tree_bytes(output) < 100_000


class Slow:
    """A container whose files are being counted."""

    async def written_bytes(self) -> int:
        await asyncio.Event().wait()
        return 0


@pytest.mark.parametrize(("blocks", "files"), [(9, 1000), (1000, 9)])
async def test_a_disk_that_runs_full_stops_a_job_while_its_files_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, files: int
) -> None:
    found = os.statvfs_result((1, 1, 1000, blocks, blocks, 1000, files, files, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    monkeypatch.setattr(disk, "INTERVAL_SECONDS", 0)
    with pytest.raises(JobFailure, match="nearly full"):
        await asyncio.wait_for(disk.watch(cast("RunningContainer", Slow()), (tmp_path,), 1000, 10), 1)


def test_artifacts(tmp_path: Path) -> None:
    (tmp_path / "fine").write_bytes(b"fine")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    (tmp_path / os.fsdecode(b"\xff")).touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    found, notices = collect(tmp_path, "/art/")
    assert found == {"/art/fine": "ZmluZQ=="}
    assert len(notices) == 6


def test_artifacts_together_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").write_bytes(bytes(999_999))
    found, notices = collect(tmp_path, "/art")
    assert (len(found), len(notices)) == (25, 5)


def test_a_result_with_artifacts_of_hostile_names_fits_into_a_frame(tmp_path: Path) -> None:
    for number in range(23):
        (tmp_path / f"{number:02}").write_bytes(bytes(999_999))
    for number in range(8000):
        (tmp_path / f"{number:04}{chr(1) * 240}").touch()
    found, _ = collect(tmp_path, "/" + "a" * 4000)
    hashes = {f"{number:04}{chr(1) * 1020}": "0" * 64 for number in range(1000)}
    message = last_message(
        V0JobFinishedRequest(
            job_uuid="job",
            docker_process_stdout=chr(1) * 1_000_000,
            docker_process_stderr="",
            artifacts=found,
            output_hashes=hashes,
        )
    )
    assert len(message.to_frame().encode()) < MAX_MINER_FRAME_BYTES


@pytest.mark.parametrize("size", [0, 1, 999_999, 1_000_000, 1_000_001, 4_000_001, 20_000_000])
def test_long_output_loses_its_middle(tmp_path: Path, size: int) -> None:
    log = JobLog(tmp_path, 1000, Printed())
    text = ("0123456789" * (size // 10 + 1))[:size]
    for at in range(0, size, 300_001):
        log.feed(STDOUT, text[at : at + 300_001].encode())
    log.close()
    expected = text if size <= RESULT_CHARS else f"{text[:500_000]} ... {text[-500_000:]}"
    assert log.stdout == expected
    assert log.stderr == ""
    kept = (tmp_path / "stdout.txt").read_text()
    assert kept.startswith(text[:1000])
    assert ("cut off here" in kept) == (size > 1000)


def test_long_output_of_wide_characters(tmp_path: Path) -> None:
    log = JobLog(tmp_path, 1000, Printed())
    for _ in range(100):
        log.feed(STDERR, ("🙂" * 30_000).encode())
    log.feed(STDERR, b"\xff")
    log.close()
    assert log.stderr == "🙂" * 500_000 + " ... " + "🙂" * 499_999 + "�"


def test_logs_take_their_names_in_the_output_folder(tmp_path: Path) -> None:
    made = JobFolders(tmp_path, "token")
    made.create()
    (made.output / "stdout.txt").mkdir()
    (made.output / "stdout.txt/x").touch()
    (made.output / "stderr.txt").symlink_to(tmp_path / "outside")
    (made.logs / "stdout.txt").write_text("out")
    (made.logs / "stderr.txt").write_text("err")
    made.show_logs()
    assert (made.output / "stdout.txt").read_text() == "out"
    assert (made.output / "stderr.txt").read_text() == "err"
    assert not (tmp_path / "outside").exists()
    assert list(made.transfer.glob("*/x")), "deleting what may be millions of files is left for later"
    made.remove()
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_locked_folder_is_alive_and_a_free_one_is_cleared(tmp_path: Path) -> None:
    alive = JobFolders(tmp_path, "alive")
    alive.create()
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead/lock").touch()
    (tmp_path / "stranger").mkdir()
    assert folders.kept_tokens(tmp_path, 0) == {"alive"}
    with pytest.raises(BlockingIOError):
        JobFolders(tmp_path, "alive").create()
    folders.remove_dead(tmp_path, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "stranger"]
    alive.remove()


def test_a_work_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="somebody else"):
        folders.prepare_work_dir(tmp_path)


def test_the_volume_is_opened_up_for_any_user(tmp_path: Path) -> None:
    made = JobFolders(tmp_path, "token")
    made.create()
    (made.volume / "d").mkdir(mode=0o700)
    (made.volume / "d/f").touch(mode=0o600)
    made.open_up()
    assert (made.volume / "d").stat().st_mode & 0o777 == 0o777
    assert (made.volume / "d/f").stat().st_mode & 0o777 == 0o777
    made.remove()
