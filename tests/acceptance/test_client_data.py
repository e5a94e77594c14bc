"""Data into a job and out of it, as real containers see it."""

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from compute_horde.stack.fileserver import FileServer
from compute_horde_sdk.v1 import ComputeHordeJob, HTTPInputVolume, InlineInputVolume, InputVolume

from .conftest import RunningHorde, client_of

SHOW = 'cd /volume; find . -type f | sort | while read -r f; do echo "$f=$(cat "$f")"; done'
NUMBERS = b"3\n4\n5\n"


async def run(horde: RunningHorde, image: str, script: str, **options: Any) -> ComputeHordeJob:
    async with client_of(horde) as client:
        job = await client.create_job("always_on.test", "SN0", image, ["sh", "-c", script], **options)
        await job.wait(timeout=60)
        return job


def zipped(name: str, contents: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, contents)
    return target.getvalue()


async def test_each_way_of_putting_data_into_the_job(horde: RunningHorde, image: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "top.txt").write_text("top")
    (tmp_path / "tree" / "deep" / "down.txt").write_text("down")
    (tmp_path / "one.txt").write_text("one")
    volumes: dict[str, InputVolume | Path] = {
        "/volume/a": InlineInputVolume.from_file_contents("a.txt", b"packed", compress=True),
        "/volume/b.bin": InlineInputVolume.from_bytes(b"bytes"),
        "/volume/c.txt": InlineInputVolume.from_text("gr\u00fcn"),
        "/volume/d.txt": InlineInputVolume.from_path(tmp_path / "one.txt"),
        "/volume/e": InlineInputVolume.from_path(tmp_path / "tree"),
        "/volume/f": tmp_path / "tree",
        "/volume/g.txt": tmp_path / "one.txt",
        "/volume/h": InlineInputVolume(contents=base64.b64encode(zipped("old.txt", "older code")).decode()),
        "/volume/i.txt": InlineInputVolume(contents=base64.b64encode(b"plain").decode()),
    }
    job = await run(horde, image, SHOW, input_volumes=volumes)
    assert job.result is not None, job.error
    assert job.result.stdout.splitlines() == [
        "./a/a.txt=packed",
        "./b.bin=bytes",
        "./c.txt=gr\u00fcn",
        "./d.txt=one",
        "./e/deep/down.txt=down",
        "./e/top.txt=top",
        "./f/deep/down.txt=down",
        "./f/top.txt=top",
        "./g.txt=one",
        "./h/old.txt=older code",
        "./i.txt=plain",
    ]


async def test_a_zip_can_stay_a_file(horde: RunningHorde, image: str) -> None:
    packed = zipped("x", "y")
    volumes = {"/volume/x.zip": InlineInputVolume.from_bytes(packed)}
    job = await run(horde, image, "sha256sum < /volume/x.zip", input_volumes=volumes)
    assert job.result is not None, job.error
    assert job.result.stdout.split()[0] == hashlib.sha256(packed).hexdigest()


@pytest.mark.parametrize("right", [True, False])
async def test_a_download_is_checked(horde: RunningHorde, image: str, files: FileServer, right: bool) -> None:
    digest = hashlib.sha256(NUMBERS if right else b"something else").hexdigest()
    volumes = {"/volume/n": HTTPInputVolume(files.url + "/numbers.txt", sha256=digest)}
    job = await run(horde, image, "wc -l < /volume/n", input_volumes=volumes)
    if right:
        assert job.result is not None, job.error
        assert (job.status.value, job.result.stdout.strip()) == ("completed", "3")
    else:
        assert job.error is not None
        assert (job.status.value, job.error.code) == ("failed", "download_checksum")
        assert job.error.fault == "user"


async def test_artifacts_are_bytes_and_can_be_saved(horde: RunningHorde, image: str, tmp_path: Path) -> None:
    script = "printf '\\001\\377' > /artifacts/a.bin; echo b > /artifacts/b.txt; echo out > /output/o.txt"
    job = await run(horde, image, script, artifacts_dir="/artifacts")
    assert job.result is not None, job.error
    assert job.result.artifacts == {"/artifacts/a.bin": b"\x01\xff", "/artifacts/b.txt": b"b\n"}
    saved = job.result.save_artifacts(tmp_path / "saved")
    assert {path.name: path.read_bytes() for path in saved} == {"a.bin": b"\x01\xff", "b.txt": b"b\n"}
    assert job.result.output_hashes == {"/output/o.txt": hashlib.sha256(b"out\n").hexdigest()}
    assert (job.result.image_digest or "").startswith("sha256:")
