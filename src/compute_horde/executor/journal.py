"""Saves a job's progress. Nothing waits for the disk but what must."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from compute_horde.executor import state as states
from compute_horde.executor.state import Begun, Saved, Stamp, State
from compute_horde.executor.timing import Clocks

log = structlog.get_logger(__name__)

SMALL_CHARS = 256 * 1024
"""Frames up to this size are written at once: that takes less time than a thread."""

_Change = tuple[Path, State, dict[str, str]]


class Journal:
    """One job's progress. ``saved``: what an earlier executor has left; ``state`` is None until :meth:`begin`.

    ``adopted`` is the state that was found, on this boot's clock.
    """

    def __init__(self, root: Path, clocks: Clocks, saved: Saved | None = None) -> None:
        self._root, self._clocks = root, clocks
        now = Stamp.now(clocks)
        self.adopted: State | None = saved.state.as_of(now) if saved else None
        self.rebooted = saved is not None and not saved.state.is_of_this_boot(now)
        self.frames = saved.frames if saved else {}
        self.state = self.adopted
        self._unsaved = dict[str, str]()
        self._wanted, self._written = 0, 0
        self._writer: asyncio.Task[None] | None = None
        self._error: OSError | None = None

    @property
    def begun(self) -> Begun | None:
        """The container that an earlier executor has begun."""
        return self.adopted.begun if self.adopted is not None else None

    @property
    def stage_until(self) -> float:
        """Until when the stage lasts in which an earlier executor was (``elapsed``)."""
        return self.adopted.stage_until if self.adopted is not None else 0.0

    @property
    def now(self) -> Stamp:
        return Stamp.now(self._clocks)

    def begin(self, state: State) -> None:
        """Save the first state."""
        self.state = state
        self._changed()

    def note(self, **changes: Any) -> None:
        """Change fields of the state, once there is one."""
        if self.state is not None:
            self.state = self.state.model_copy(update=changes)
            self._changed()

    def keep(self, name: str, frame: str) -> None:
        """Keep a frame beside the state, once there is one."""
        self._unsaved[name] = frame
        if self.state is not None:
            self._changed()

    async def saved(self) -> None:
        """Return when all that was noted outlives this process. :raises OSError: it does not, and why."""
        await self.settled()
        if self._error is not None:
            raise self._error

    async def durable(self) -> None:
        """Return when all that was noted outlives the machine. :raises OSError:"""
        await self.saved()
        if self.state is not None:
            await asyncio.to_thread(states.flush, self._root)

    async def settled(self) -> None:
        """Return when nothing is being written."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def _changed(self) -> None:
        self._wanted += 1
        if self._writer is not None and not self._writer.done():
            return
        if sum(map(len, self._unsaved.values())) <= SMALL_CHARS:
            for change in self._next():
                self._settle(change, _attempt(*change))
        else:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Large frames are written beside the job."""
        while self._written < self._wanted:
            for change in self._next():
                self._settle(change, await asyncio.to_thread(_attempt, *change))

    def _next(self) -> Iterator[_Change]:
        if self.state is not None:
            self._written, frames, self._unsaved = self._wanted, self._unsaved, {}
            yield self._root, self.state.model_copy(update={"written": self.now}), frames

    def _settle(self, change: _Change, error: OSError | None) -> None:
        self._error = error
        if error is not None:
            log.error("a job's progress cannot be saved", why=error.strerror)
            self._unsaved = {**change[2], **self._unsaved}


def _attempt(root: Path, state: State, frames: dict[str, str]) -> OSError | None:
    try:
        states.save(root, state, frames)
    except OSError as error:
        return error
    return None
