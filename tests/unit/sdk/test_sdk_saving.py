"""``save_artifacts``: names that a hostile machine chose."""

import os
from pathlib import Path

import pytest

from compute_horde_sdk.v1 import ComputeHordeJobResult, ComputeHordeValidationError


def saved(directory: Path, **artifacts: bytes) -> dict[str, bytes]:
    ComputeHordeJobResult("", "", artifacts).save_artifacts(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def names(directory: Path, *paths: str) -> list[str]:
    """What artifacts at these paths are called; nothing may be written elsewhere."""
    inside = directory / "inside"
    result = ComputeHordeJobResult("", "", {path: str(index).encode() for index, path in enumerate(paths)})
    written = result.save_artifacts(inside)
    assert [path.read_bytes() for path in written] == list(result.artifacts.values())
    assert sorted(written) == sorted(inside.iterdir())
    assert list(directory.iterdir()) == [inside]
    return [path.name for path in written]


def test_artifacts_are_files_by_their_own_names(tmp_path: Path) -> None:
    assert names(tmp_path, "/artifacts/out.txt", "/artifacts//.hidden", "plain") == ["out.txt", ".hidden", "plain"]


def test_nothing_escapes(tmp_path: Path) -> None:
    hostile = ["../up", "/etc/passwd", "/a/..", "/a/.", "", "/", "...", "/a/../../b", "..\\win", "C:\\x"]
    assert names(tmp_path, *hostile) == [
        "up",
        "passwd",
        "artifact",
        "artifact-2",
        "artifact-3",
        "artifact-4",
        "artifact-5",
        "b",
        ".._win",
        "C__x",
    ]


def test_odd_names(tmp_path: Path) -> None:
    odd = ["/a/\0", "/a/\x1b[31m", "/a/\ud800", "/a/" + "é" * 300 + ".txt", "/a/ x ", "/a/\u202etxt"]
    assert names(tmp_path, *odd) == ["_", "_[31m", "_-2", "é" * 100, "x", "_txt"]


def test_equal_names_are_numbered_also_where_only_the_case_differs(tmp_path: Path) -> None:
    paths = ("/a/x.txt", "/b/x.txt", "/b/X.TXT", "/b/x-2.txt", "/c/.x", "/d/.x")
    assert names(tmp_path, *paths) == ["x.txt", "x-2.txt", "X-3.TXT", "x-2-2.txt", ".x", ".x-2"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert saved(tmp_path / "a" / "b", x=b"1") == {"x": b"1"}
    assert ComputeHordeJobResult().save_artifacts(str(tmp_path / "c")) == []
    assert (tmp_path / "c").is_dir()


def test_a_file_that_is_there_is_left_alone_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("mine")
    with pytest.raises(ComputeHordeValidationError, match=r"main\.py exists") as caught:
        ComputeHordeJobResult("", "", {"/a/new": b"", "/a/main.py": b"theirs"}).save_artifacts(tmp_path)
    assert caught.value.field == "directory"
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]
    assert (tmp_path / "main.py").read_text() == "mine"


def test_overwriting_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "x").symlink_to(outside)
    (inside / "y").write_text("old")
    result = ComputeHordeJobResult("", "", {"/a/x": b"1", "/a/y": b"2"})
    with pytest.raises(ComputeHordeValidationError):
        result.save_artifacts(inside)
    assert result.save_artifacts(inside, overwrite=True) == [inside / "x", inside / "y"]
    assert outside.read_text() == "mine"
    assert not (inside / "x").is_symlink()
    assert sorted(path.name for path in inside.iterdir()) == ["x", "y"]
    assert (inside / "y").read_bytes() == b"2"


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ComputeHordeValidationError, match="exists"):
        ComputeHordeJobResult("", "", {"/a/x": b"1"}).save_artifacts(tmp_path, overwrite=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for directory in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(ComputeHordeValidationError, match="not a folder"):
            ComputeHordeJobResult().save_artifacts(directory)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        ComputeHordeJobResult("", "", {"/a/x": b"1"}).save_artifacts(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_result_can_be_noted() -> None:
    from compute_horde_sdk.v1 import HttpOutputVolumeResponse

    result = ComputeHordeJobResult("out", "err", {}, {})
    result.add_upload_result("a/b", HttpOutputVolumeResponse({"ETag": "1"}, "ok"))
    assert result.upload_results["/output/a/b"].body == "ok"
