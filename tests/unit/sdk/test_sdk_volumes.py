"""Inputs from memory and from the disk, checksums, S3: what a caller has, and what travels."""

import base64
import io
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compute_horde_sdk._internal.specs import packing
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.volumes import input_to_wire
from compute_horde_sdk.v1 import (
    ComputeHordeError,
    ComputeHordeJobSpec,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
    HTTPInputVolume,
    HTTPOutputVolume,
    InlineInputVolume,
    s3_input_volume,
    s3_output_volume,
)

SHA = "AB" * 32


def entries(contents: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(contents))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def arriving(volume: InlineInputVolume, path: str) -> dict[str, bytes]:
    """The files below ``/volume/`` that this makes."""
    wire = input_to_wire(volume, path).model_dump()
    below = f"{wire['relative_path']}/" if wire["relative_path"] else ""
    return {below + name: data for name, data in entries(wire["contents"]).items()}


def test_bytes_and_text_become_the_file_at_the_mount_path() -> None:
    assert arriving(InlineInputVolume.from_bytes(b"\0\1"), "a/b.bin") == {"a/b.bin": b"\0\1"}
    assert arriving(InlineInputVolume.from_bytes(bytearray(b"")), "empty") == {"empty": b""}
    assert arriving(InlineInputVolume.from_text("é\n"), "t.txt") == {"t.txt": "é\n".encode()}
    assert arriving(InlineInputVolume.from_text("é", "latin-1"), "t.txt") == {"t.txt": b"\xe9"}


def test_bytes_that_are_a_zip_stay_a_file_unless_it_is_to_be_unpacked() -> None:
    packed = packing.zip_of({"inner": b"x"}, compress=False)
    assert arriving(InlineInputVolume.from_bytes(packed), "a.zip") == {"a.zip": packed}
    text = base64.b64encode(packed).decode()
    assert arriving(InlineInputVolume(text), "d") == {"d/inner": b"x"}
    assert arriving(InlineInputVolume(text, unpack=True), "d") == {"d/inner": b"x"}


def test_a_local_file(tmp_path: Path) -> None:
    local = tmp_path / "model.zip"
    local.write_bytes(packing.zip_of({"w": b"1"}, compress=True))
    assert arriving(InlineInputVolume.from_path(str(local)), "m.zip") == {"m.zip": local.read_bytes()}


def folder(root: Path) -> Path:
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "b.txt").write_text("b")
    (root / "a.txt").write_text("a")
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o755)
    return root


def test_a_local_folder_is_the_same_zip_whenever_and_wherever_it_is_made(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    os.utime(two / "a.txt", (1, 1))
    first, second = (InlineInputVolume.from_path(path) for path in (one, two))
    assert first == second
    assert arriving(first, "data/") == {
        "data/a.txt": b"a",
        "data/run.sh": b"#!/bin/sh",
        "data/sub/": b"",
        "data/sub/b.txt": b"b",
        "data/sub/empty/": b"",
    }
    with zipfile.ZipFile(io.BytesIO(first.decoded())) as archive:
        assert archive.getinfo("run.sh").external_attr >> 16 == packing.PROGRAM_MODE
        assert archive.getinfo("a.txt").external_attr >> 16 == packing.FILE_MODE


def test_an_empty_folder(tmp_path: Path) -> None:
    assert arriving(InlineInputVolume.from_path(tmp_path), "data") == {}


@pytest.mark.parametrize("make", ["link", "link_out", "pipe", "backslash", "not_unicode"])
def test_what_cannot_be_sent_is_named_and_nothing_is_followed(tmp_path: Path, make: str) -> None:
    root = tmp_path / "data"
    (root / "deep").mkdir(parents=True)
    odd = root / "deep" / "odd"
    match make:
        case "link":
            odd.symlink_to(root)
        case "link_out":
            odd.symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(odd)
        case "backslash":
            (root / "deep" / "odd\\b").touch()
        case "not_unicode":
            (root / "deep" / os.fsdecode(b"odd\xff")).touch()
    with pytest.raises(ComputeHordeValidationError, match="odd") as caught:
        InlineInputVolume.from_path(root)
    assert caught.value.field == "path"


def test_paths_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(ComputeHordeValidationError, match="there is no"):
        InlineInputVolume.from_path(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ComputeHordeValidationError, match="neither"):
        InlineInputVolume.from_path(tmp_path / "pipe")
    with pytest.raises(ComputeHordeValidationError, match="cannot be read"):
        InlineInputVolume.from_path(tmp_path / ("x" * 300))


def test_a_file_that_may_not_be_read() -> None:
    nobody_reads_this = Path("/proc/self/mem")  # a regular file whose beginning not even root can read
    with pytest.raises(ComputeHordeValidationError, match="cannot be read"):
        InlineInputVolume.from_path(nobody_reads_this)


def test_too_much_for_a_job_points_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_much = os.urandom(packing.MAX_INLINE_BYTES + 1)
    (tmp_path / "big").write_bytes(too_much)
    makers: list[Any] = [
        lambda: InlineInputVolume.from_bytes(too_much),
        lambda: InlineInputVolume(base64.b64encode(too_much).decode()),
        lambda: InlineInputVolume.from_path(tmp_path / "big"),
        lambda: InlineInputVolume.from_path(tmp_path),
    ]
    for make in makers:
        with pytest.raises(ComputeHordeValidationError, match="20 MiB") as caught:
            make()
        assert "HTTPInputVolume" in caught.value.hint
    monkeypatch.setattr(packing, "MAX_UNPACKED_BYTES", 3)
    zeros = tmp_path / "zeros"
    zeros.mkdir()
    (zeros / "z").write_bytes(bytes(4))
    with pytest.raises(ComputeHordeValidationError, match="too large"):
        InlineInputVolume.from_path(zeros)


async def test_a_path_is_an_input(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    fake = FakeFacilitator()
    spec = ComputeHordeJobSpec(
        "always_on.test",
        "SN0",
        "alpine",
        input_volumes={
            "/volume/data": root,
            "/volume/a.txt": root / "a.txt",
            "/volume/x": HTTPInputVolume(url="http://e.com/x"),
        },
    )
    async with fake.client() as client:
        job = await client.create_job(spec)
        with pytest.raises(ComputeHordeValidationError) as caught:
            await client.create_job("always_on.test", "SN0", "a", input_volumes={"/volume/n": root / "none"})
    assert caught.value.field == "input_volumes['/volume/n']"
    data, file, fetched = fake.jobs[job.uuid].volumes
    assert (data["relative_path"], "sub/b.txt" in entries(data["contents"])) == ("data", True)
    assert entries(file["contents"]) == {"a.txt": b"a"}
    assert fetched["url"] == "http://e.com/x"
    assert spec.input_volumes is not None
    assert spec.input_volumes["/volume/data"] is root


def test_a_checksum_travels_behind_the_url() -> None:
    wire = input_to_wire(HTTPInputVolume("https://e.com/x?sig=1", sha256=SHA), "x").model_dump()
    assert wire["url"] == f"https://e.com/x?sig=1#sha256={SHA.lower()}"
    assert input_to_wire(HTTPInputVolume("https://e.com/x#y"), "x").model_dump()["url"] == "https://e.com/x#y"


class Presigner:
    """What boto3's S3 client does offline."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], int]] = []

    def generate_presigned_url(self, ClientMethod: str, Params: Mapping[str, str], ExpiresIn: int) -> str:  # noqa: N803
        self.asked.append((ClientMethod, dict(Params), ExpiresIn))
        if Params["Key"] == "broken":
            raise RuntimeError("no credentials")
        return f"https://{Params['Bucket']}.s3.test/{Params['Key']}?X-Amz-Signature=secret"


def test_s3_volumes_are_presigned() -> None:
    client = Presigner()
    inside = s3_input_volume("data", "in.bin", expires_s=60, sha256=SHA, client=client)
    outside = s3_output_volume("data", "out.bin", client=client)
    assert inside == HTTPInputVolume("https://data.s3.test/in.bin?X-Amz-Signature=secret", SHA)
    assert outside == HTTPOutputVolume("PUT", "https://data.s3.test/out.bin?X-Amz-Signature=secret")
    assert client.asked == [
        ("get_object", {"Bucket": "data", "Key": "in.bin"}, 60),
        ("put_object", {"Bucket": "data", "Key": "out.bin"}, 3600),
    ]
    assert "secret" not in f"{inside}{outside}"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("bucket", {"bucket": ""}),
        ("key", {"key": 3}),
        *[("expires_s", {"expires_s": value}) for value in (0, 604801, True, 1.5, "60")],
    ],
)
def test_wrong_s3_arguments(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        s3_input_volume(**{"bucket": "b", "key": "k", "client": Presigner(), **changes})
    assert caught.value.field == field


def test_s3_without_credentials_or_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ComputeHordeError, match="no credentials") as caught:
        s3_output_volume("b", "broken", client=Presigner())
    assert caught.value.code == "presign_failed"
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ComputeHordeUnsupportedError, match=r"compute-horde\[s3\]"):
        s3_output_volume("b", "k")


def test_s3_takes_boto3_as_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Boto3:
        @staticmethod
        def client(service: str) -> Presigner:
            assert service == "s3"
            return Presigner()

    monkeypatch.setitem(sys.modules, "boto3", Boto3)
    assert "b.s3.test/k" in s3_output_volume("b", "k").url
