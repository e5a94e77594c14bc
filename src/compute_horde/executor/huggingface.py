"""Volumes from the Hugging Face hub, at any depth alike (G59)."""

import asyncio
import contextlib
from pathlib import Path

import httpx
from pydantic import SecretStr

from compute_horde.executor.confined import remove_tree
from compute_horde.executor.errors import failure
from compute_horde.protocol.volumes import HuggingfaceVolume

ATTEMPTS = 3
PAUSES = (1.0, 4.0)


async def load_snapshot(volume: HuggingfaceVolume, folder: Path, default_token: SecretStr | None) -> None:
    """Download a snapshot into ``folder``. Cancelled, its thread may go on for a while.

    :raises JobFailure: ``volume_unsupported``, ``volume_invalid``, ``download_unreachable``.
    """
    token = volume.token or (default_token.get_secret_value() if default_token else None)
    for pause in (*PAUSES, None):
        try:
            return await asyncio.to_thread(_snapshot, volume, folder, token)
        except OSError as error:
            if pause is None:
                text = f"{volume.repo_id!r} could not be downloaded ({type(error).__name__})."
                raise failure("download_unreachable", text) from None
        await asyncio.sleep(pause)
    return None


def _snapshot(volume: HuggingfaceVolume, folder: Path, token: str | None) -> None:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - optional, and slow to import
        from huggingface_hub.errors import (  # noqa: PLC0415
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        text = "This executor has no huggingface_hub to load the volume with."
        raise failure("volume_unsupported", text) from None
    try:
        snapshot_download(
            volume.repo_id,
            repo_type=volume.repo_type,
            revision=volume.revision,
            allow_patterns=volume.allow_patterns,
            token=token or False,
            local_dir=folder,
        )
    except (LocalEntryNotFoundError, httpx.HTTPError) as error:
        raise ConnectionError(type(error).__name__) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, ValueError) as error:
        text = f"The hub has no {volume.repo_id!r} as described ({type(error).__name__})."
        raise failure("volume_invalid", text) from None
    remove_tree(folder / ".cache/huggingface")
    with contextlib.suppress(OSError):
        (folder / ".cache").rmdir()
