"""Archives that somebody hostile made."""

import io
import stat
import struct
import threading
import zipfile
from pathlib import Path

import pytest

from compute_horde.executor.errors import JobFailure
from compute_horde.executor.unzip import ZipLimits, unzip

LIMITS = ZipLimits(entries=10, size=1000)


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], compress: bool = False) -> io.BytesIO:
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name, data in entries:
            made.writestr(name, data, compress_type=kind)
    return buffer


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def refuse(file: io.BytesIO, folder: Path, limits: ZipLimits = LIMITS) -> str:
    with pytest.raises(JobFailure) as caught:
        unzip(file, folder, limits, threading.Event())
    return caught.value.problem.code


def test_files_and_folders_the_last_of_a_name_wins(tmp_path: Path) -> None:
    entries = [("a/b.txt", b"1"), ("empty/", b""), ("./c", b"2")]
    with pytest.warns(UserWarning, match="Duplicate"):
        file = archive(*entries, ("a/b.txt", b"3"))
    unzip(file, tmp_path, LIMITS, threading.Event())
    assert (tmp_path / "a/b.txt").read_bytes() == b"3"
    assert (tmp_path / "c").read_bytes() == b"2"
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/absolute", "back\\slash", "a//b", "x" * 256])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    assert refuse(archive((name, b"")), tmp_path) == "volume_zip_unsafe"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files(tmp_path: Path, kind: int) -> None:
    assert refuse(archive((special("x", kind), b"/etc/passwd")), tmp_path) == "volume_zip_unsafe"


def test_a_link_that_is_there_already_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/link").symlink_to(tmp_path / "outside")
    assert refuse(archive(("link/file", b"x")), tmp_path / "volume") == "volume_invalid"
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    assert refuse(archive(("a", b""), ("a/b", b"")), tmp_path) == "volume_invalid"


def test_a_bomb_that_declares_its_size(tmp_path: Path) -> None:
    assert refuse(archive(("zeros", bytes(100_000)), compress=True), tmp_path) == "volume_too_large"


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    data = archive(("zeros", bytes(100_000)), compress=True).getvalue()
    lying = data.replace(struct.pack("<L", 100_000), struct.pack("<L", 10))
    assert refuse(io.BytesIO(lying), tmp_path) in ("volume_not_zip", "volume_too_large")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_too_many_entries(tmp_path: Path) -> None:
    assert refuse(archive(*((str(n), b"") for n in range(11))), tmp_path) == "volume_zip_unsafe"


def test_an_index_too_large_to_be_read(tmp_path: Path) -> None:
    data = bytearray(archive(("a", b"")).getvalue())
    struct.pack_into("<L", data, len(data) - 22 + 12, 5_000_000)
    assert refuse(io.BytesIO(bytes(data)), tmp_path) == "volume_zip_unsafe"


def test_an_index_too_large_by_the_64_bit_record(tmp_path: Path) -> None:
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, 5_000_000, 0)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert refuse(io.BytesIO(record + locator + end), tmp_path) == "volume_zip_unsafe"


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    assert refuse(io.BytesIO(data), tmp_path) == "volume_not_zip"


def test_an_encrypted_archive(tmp_path: Path) -> None:
    data = bytearray(archive(("a", b"x")).getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refuse(io.BytesIO(bytes(data)), tmp_path) == "volume_zip_unsafe"


def test_nobody_waits_any_more(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    unzip(archive(("a", b"x")), tmp_path, LIMITS, stop)
    assert (tmp_path / "a").read_bytes() == b""
