"""Snapshots of the Hugging Face hub, whose package is replaced by a function."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import SecretStr

from compute_horde.executor import huggingface
from compute_horde.executor.errors import JobFailure
from compute_horde.executor.huggingface import load_snapshot
from compute_horde.protocol.volumes import HuggingfaceVolume

VOLUME = HuggingfaceVolume(repo_id="org/model", revision="abc", allow_patterns="*.bin")


class Hub:
    """Stands in for ``snapshot_download``; raises what it is given, one after another."""

    def __init__(self, *errors: Exception) -> None:
        self.calls: list[dict[str, Any]] = []
        self._errors = list(errors)

    def __call__(self, repo_id: str, **options: Any) -> None:
        self.calls.append({"repo_id": repo_id, **options})
        if self._errors:
            raise self._errors.pop(0)
        folder: Path = options["local_dir"]
        (folder / ".cache/huggingface").mkdir(parents=True)
        (folder / "model.bin").touch()


async def load(
    monkeypatch: pytest.MonkeyPatch, folder: Path, hub: Hub, volume: HuggingfaceVolume = VOLUME
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.setattr(huggingface, "PAUSES", (0, 0))
    await load_snapshot(volume, folder, SecretStr("default"))


async def test_a_snapshot_after_a_lost_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = Hub(LocalEntryNotFoundError("no connection"), OSError("reset"))
    await load(monkeypatch, tmp_path, hub)
    left = [path.name for path in tmp_path.iterdir()]  # noqa: ASYNC240 - nothing else runs here
    assert left == ["model.bin"]
    assert len(hub.calls) == 3
    assert (hub.calls[0]["token"], hub.calls[0]["revision"]) == ("default", "abc")


async def test_the_volumes_own_token_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = Hub()
    await load(monkeypatch, tmp_path, hub, VOLUME.model_copy(update={"token": "own"}))
    assert hub.calls[0]["token"] == "own"


@pytest.mark.parametrize(
    ("errors", "code"),
    [([ValueError("own name")], "volume_invalid"), ([OSError("secret")] * 3, "download_unreachable")],
)
async def test_failures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, errors: list[Exception], code: str
) -> None:
    with pytest.raises(JobFailure) as caught:
        await load(monkeypatch, tmp_path, Hub(*errors))
    assert caught.value.problem.code == code
    assert "secret" not in caught.value.problem.message
