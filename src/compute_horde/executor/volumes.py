"""Input volumes, placed into the volume folder one after another (sections 4.2 and 8.1)."""

import asyncio
import base64
import binascii
import io
import os
import re
import threading
from pathlib import Path
from typing import BinaryIO, assert_never

import httpx

from compute_horde.executor import confined
from compute_horde.executor.counting import Counting
from compute_horde.executor.disk import tree_bytes
from compute_horde.executor.download import Downloader
from compute_horde.executor.errors import JobFailure, failure
from compute_horde.executor.huggingface import load_snapshot
from compute_horde.executor.patience import in_thread
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.executor.unzip import ZipLimits, unzip
from compute_horde.protocol.volumes import (
    HuggingfaceVolume,
    InlineVolume,
    MultiVolume,
    SingleFileVolume,
    Volume,
    ZipUrlVolume,
)

CHECKSUM_PREFIX = "sha256="
_CHECKSUM = re.compile(r"[0-9a-fA-F]{64}")


class VolumeLoader:
    """Fills ``folder``. ``transfer`` takes what is not yet unpacked."""

    def __init__(
        self,
        settings: ExecutorSettings,
        client: httpx.AsyncClient,
        folder: Path,
        transfer: Path,
        counting: Counting | None = None,
    ) -> None:
        self._settings, self._folder, self._transfer = settings, folder, transfer
        self._counting = counting or Counting()
        self._downloader = Downloader(client, settings.download_max_bytes, count=self._counting.downloaded)

    async def load(self, volume: Volume) -> None:
        """:raises JobFailure: says which input cannot be used and why. May be cancelled."""
        match volume:
            case InlineVolume():
                data = await asyncio.to_thread(_decoded, volume.contents)
                await self._unzip(io.BytesIO(data), volume.relative_path)
            case ZipUrlVolume():
                await self._load_zip(volume)
            case SingleFileVolume():
                await self._load_file(volume)
            case HuggingfaceVolume():
                await self._load_snapshot(volume)
            case MultiVolume():
                for part in volume.volumes:
                    await self.load(part)
            case _:
                assert_never(volume)

    async def _load_zip(self, volume: ZipUrlVolume) -> None:
        archive = self._transfer / "volume.zip"
        with archive.open("w+b") as file:
            await self._downloader.fetch(volume.contents, file)
            await self._unzip(file, volume.relative_path)
        archive.unlink()

    async def _load_snapshot(self, volume: HuggingfaceVolume) -> None:
        folder = self._subfolder(volume.relative_path)
        before = await asyncio.to_thread(tree_bytes, folder)
        await load_snapshot(volume, folder, self._settings.huggingface_token)
        # the library does not say what it fetched; what the folder has grown by comes near
        self._counting.downloaded(max(0, await asyncio.to_thread(tree_bytes, folder) - before))

    async def _load_file(self, volume: SingleFileVolume) -> None:
        url, digest = _checked_url(volume.url)
        try:
            descriptor = confined.write(self._folder, volume.relative_path)
        except OSError as error:
            text = f"The input {volume.relative_path!r} cannot be written: {error.strerror}."
            raise failure("volume_invalid", text) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                await self._downloader.fetch(url, file, digest)
        except JobFailure:
            confined.remove(self._folder, volume.relative_path)
            raise

    async def _unzip(self, file: BinaryIO, relative_path: str | None) -> None:
        limits = ZipLimits(self._settings.input_zip_entries, self._settings.download_max_bytes)
        stop = threading.Event()
        await in_thread(stop, unzip, file, self._subfolder(relative_path), limits, stop)

    def _subfolder(self, relative_path: str | None) -> Path:
        parts = tuple(part for part in (relative_path or "").split("/") if part)
        try:
            with confined.folder(self._folder, parts, create=True):
                return self._folder.joinpath(*parts)
        except OSError as error:
            text = f"The input folder {relative_path!r} cannot be made: {error.strerror}."
            raise failure("volume_invalid", text) from None


def _decoded(contents: str) -> bytes:
    try:
        return base64.b64decode("".join(contents.split()), validate=True)
    except (binascii.Error, ValueError):
        raise failure("volume_not_base64", "The inline volume is not base64.") from None


def _checked_url(url: str) -> tuple[str, str | None]:
    """The URL to ask, without its fragment, and the SHA-256 in hex that the fragment names, if any."""
    address, _, fragment = url.partition("#")
    if not fragment.startswith(CHECKSUM_PREFIX):
        return address, None
    digest = fragment.removeprefix(CHECKSUM_PREFIX)
    if not _CHECKSUM.fullmatch(digest):
        raise failure("volume_invalid", "The checksum in an input's URL is not sha256= and 64 hex digits.")
    return address, digest.lower()
