"""The demonstration's picture and image."""

import stat
import tarfile
from pathlib import Path

from compute_horde.stack.image import build_context
from compute_horde.stack.mandelbrot import PALETTE, View, picture


def test_the_picture_is_symmetric_and_has_an_inside() -> None:
    drawn, summary = picture(View(), PALETTE)
    lines = drawn.splitlines()
    assert lines == lines[::-1]
    assert {len(line) for line in lines} == {View().columns}
    assert PALETTE[-1] in drawn
    assert summary.startswith("inside ")


def test_the_view_travels_as_one_line_of_numbers() -> None:
    assert [float(word) for word in View().to_text().split()] == [float(value) for value in View()]


def test_the_build_context_links_every_applet_to_busybox(tmp_path: Path) -> None:
    fake = tmp_path / "busybox"
    fake.write_text("#!/bin/sh\necho sh\necho awk\necho busybox\n")
    fake.chmod(0o755)
    with tarfile.open(fileobj=build_context(fake)) as tar:
        assert tar.getmember("rootfs/bin/awk").linkname == "busybox"
        assert stat.S_IMODE(tar.getmember("rootfs/bin/busybox").mode) == 0o755
        assert "rootfs/tmp" in tar.getnames()
