"""Output uploads (section 4.3): everything is opened before the first request, so a missing file costs nothing."""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, assert_never

from compute_horde.executor import confined
from compute_horde.executor.counting import Counting
from compute_horde.executor.errors import failure
from compute_horde.executor.network import WebClient
from compute_horde.executor.outputs import zip_folder
from compute_horde.executor.patience import in_thread
from compute_horde.executor.send import PAUSES, Delivery, Sender
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.protocol.uploads import (
    MultiUpload,
    OutputUpload,
    SingleFilePostUpload,
    SingleFilePutUpload,
    ZipAndHttpPostUpload,
    ZipAndHttpPutUpload,
)

ZIP_NAME = "output.zip"
SYSTEM_OUTPUT = "system_output"
CONCURRENCY = 3


class _Task(NamedTuple):
    """One request to make: the key of its result, and what goes where."""

    key: str
    delivery: Delivery


class Uploader:
    """Uploads from ``output``; archives are built in ``transfer``. ``notices``: what they left out."""

    def __init__(
        self,
        settings: ExecutorSettings,
        web: WebClient,
        output: Path,
        transfer: Path,
        pauses: tuple[float, ...] = PAUSES,
        counting: Counting | None = None,
    ) -> None:
        self._settings, self._web, self._output, self._transfer = settings, web, output, transfer
        self._pauses, self._counting = pauses, counting or Counting()
        self.notices: list[str] = []

    async def upload(self, wanted: OutputUpload) -> dict[str, str]:
        """What each target answered, as JSON text by key. One failure stops the rest. May be cancelled.

        :raises JobFailure: ``output_missing``, ``output_invalid``, ``output_too_large``, ``upload_refused``,
            ``upload_http_error``, ``upload_unreachable``.
        """
        with contextlib.ExitStack() as opened:
            tasks = [task async for task in self._tasks(wanted, opened)]
            async with self._web() as client:
                return await _all(Sender(client, self._pauses, self._counting.uploaded), tasks)

    async def _tasks(self, wanted: OutputUpload, opened: contextlib.ExitStack) -> AsyncIterator[_Task]:
        match wanted:
            case SingleFilePostUpload() | SingleFilePutUpload():
                yield self._single(wanted, opened)
            case ZipAndHttpPostUpload() | ZipAndHttpPutUpload():
                yield await self._zip(ZIP_NAME, wanted, frozenset(), opened)
            case MultiUpload():
                for one in wanted.uploads:
                    yield self._single(one, opened)
                if wanted.system_output is not None:
                    named = frozenset(one.relative_path for one in wanted.uploads)
                    yield await self._zip(SYSTEM_OUTPUT, wanted.system_output, named, opened)
            case _:
                assert_never(wanted)

    def _single(self, wanted: SingleFilePostUpload | SingleFilePutUpload, opened: contextlib.ExitStack) -> _Task:
        path = wanted.relative_path
        file = opened.enter_context(self._open(path))
        form = wanted.form_fields or {} if isinstance(wanted, SingleFilePostUpload) else None
        name = path.rpartition("/")[2]
        return _Task(path, Delivery(wanted.url, file, name, form, wanted.signed_headers or {}))

    async def _zip(
        self,
        key: str,
        wanted: ZipAndHttpPostUpload | ZipAndHttpPutUpload,
        leave_out: frozenset[str],
        opened: contextlib.ExitStack,
    ) -> _Task:
        file = opened.enter_context(tempfile.TemporaryFile(dir=self._transfer))  # noqa: SIM115 - closed with the rest
        stop = threading.Event()
        self.notices += await in_thread(
            stop,
            zip_folder,
            self._output,
            file,
            leave_out=leave_out,
            entries=self._settings.output_zip_entries,
            size=self._settings.output_max_bytes,
            stop=stop,
        )
        form = wanted.form_fields or {} if isinstance(wanted, ZipAndHttpPostUpload) else None
        return _Task(key, Delivery(wanted.url, file, ZIP_NAME, form, {}))

    def _open(self, path: str) -> BinaryIO:
        try:
            descriptor = confined.read(self._output, path)
        except confined.NotRegular as error:
            raise failure("output_invalid", f"The output {path!r} cannot be uploaded: {error.strerror}.") from None
        except OSError:
            raise failure("output_missing", f"The job did not write the output {path!r}.") from None
        file = os.fdopen(descriptor, "rb")
        limit = self._settings.output_max_bytes
        if os.fstat(descriptor).st_size > limit:
            file.close()
            raise failure("output_too_large", f"The output {path!r} is larger than {limit} bytes.", limit=limit)
        return file


async def _all(sender: Sender, tasks: list[_Task]) -> dict[str, str]:
    """Every upload, a few at a time (G61). The first failure cancels those that are not done."""
    free = asyncio.Semaphore(CONCURRENCY)

    async def one(task: _Task) -> str:
        async with free:
            return (await sender.send(task.delivery)).to_frame()

    running = [asyncio.create_task(one(task)) for task in tasks]
    try:
        answers = await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
    return {task.key: answer for task, answer in zip(tasks, answers, strict=True)}
