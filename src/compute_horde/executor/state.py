"""How far a job has come, kept in its folder for the executor that goes on should this one die."""

import os
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from compute_horde.executor.runtime import Image
from compute_horde.executor.timing import Clocks
from compute_horde.protocol.base import Message
from compute_horde.protocol.enums import Stage
from compute_horde.protocol.validator_miner import (
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0VolumesReadyRequest,
)

log = structlog.get_logger(__name__)

KEEP_SECONDS = 600.0
"""How much longer than its limits a job's folder and container are kept, and its result is offered."""

STATE = "state.jsonl"
INITIAL, JOB, LAST = "initial", "job", "last"
"""The frames that are kept."""
STAGES: Final = (Stage.EXECUTOR_STARTUP, Stage.VOLUME_DOWNLOAD, Stage.EXECUTION, Stage.RESULT_UPLOAD)

ENTERED: Final = {
    Stage.VOLUME_DOWNLOAD: V0ExecutorReadyRequest,
    Stage.EXECUTION: V0VolumesReadyRequest,
    Stage.RESULT_UPLOAD: V0ExecutionDoneRequest,
}
"""How the miner is told that a stage begins."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stamp(_Model):
    """One moment, by all three clocks."""

    boot: str
    elapsed: float
    wall: float

    @classmethod
    def now(cls, clocks: Clocks) -> "Stamp":
        return cls(boot=clocks.boot(), elapsed=clocks.elapsed(), wall=clocks.wall())


class Begun(_Model):
    """The container of ``image``: started no earlier than ``at`` (elapsed), it may run for ``limit_s``."""

    at: float
    limit_s: float
    image: Image


class State(_Model):
    """``written``: when this was saved. ``startup_until``, ``until``: the deadlines of the start-up and of
    ``stage`` (elapsed). ``keep_until``: wall clock. ``timed_out``: how the container ended, from the upload stage
    on. ``over``: the last message exists.
    """

    version: Literal[1] = 1
    token: str
    job_uuid: str
    written: Stamp
    keep_until: float
    startup_until: float
    stage: Stage = Stage.EXECUTOR_STARTUP
    until: float = 0
    begun: Begun | None = None
    timed_out: bool = False
    cancelled: bool = False
    over: bool = False

    @property
    def stage_until(self) -> float:
        """The deadline of the stage that was reached (``elapsed``)."""
        return self.startup_until if self.stage is Stage.EXECUTOR_STARTUP else self.until

    def messages(self) -> list[Message]:
        """What the miner is told up to this stage."""
        reached = STAGES[: STAGES.index(self.stage) + 1]
        return [ENTERED[stage](job_uuid=self.job_uuid) for stage in reached if stage in ENTERED]

    def has_reached(self, stage: Stage) -> bool:
        return STAGES.index(self.stage) >= STAGES.index(stage)

    def is_of_this_boot(self, now: Stamp) -> bool:
        return bool(now.boot) and self.written.boot == now.boot

    def as_of(self, now: Stamp) -> "State":
        """The same by this boot's clock: after a reboot the wall clock says how much time has passed."""
        if self.is_of_this_boot(now):
            return self
        away = max(0.0, now.wall - self.written.wall)
        shift = now.elapsed - self.written.elapsed - away
        begun = self.begun and self.begun.model_copy(update={"at": self.begun.at + shift})
        moved = {"startup_until": self.startup_until + shift, "until": self.until + shift, "begun": begun}
        return self.model_copy(update=moved)


class _Line(_Model):
    """One line of the file: what was noted, and the frames that came since the line before."""

    state: State
    frames: dict[str, str] = {}


class Saved(NamedTuple):
    """What a folder holds. The frames are as they came, by their names."""

    state: State
    frames: dict[str, str]


def load(root: Path, token: str) -> Saved | None:
    """What an earlier executor has left of this job; None where nothing can be used."""
    lines = _lines(root)
    frames = {name: text for line in lines for name, text in line.frames.items()}
    if not lines or lines[-1].state.token != token or (lines[-1].state.over and LAST not in frames):
        return None
    return Saved(lines[-1].state, frames)


def load_state(root: Path) -> State | None:
    """The state alone."""
    lines = _lines(root)
    return lines[-1].state if lines else None


def _lines(root: Path) -> list[_Line]:
    """Those that are whole: a crash may have left half a one, and a full disk as well."""
    found = list[_Line]()
    try:
        data = (root / STATE).read_bytes()
    except OSError:
        return found
    for text in filter(None, data.split(b"\n")):
        try:
            found.append(_Line.model_validate_json(text))
        except ValidationError as error:
            log.warning("a line of a job's state cannot be read", errors=error.error_count())
    return found


def save(root: Path, state: State, frames: dict[str, str]) -> None:
    """Append a line: the death of this process at any moment leaves it whole or leaves those before it.

    What the death of the machine leaves is another matter: see :func:`flush`. :raises OSError:
    """
    line = b"\n" + _Line(state=state, frames=frames).model_dump_json().encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(root / STATE, flags, 0o600), "wb") as file:
        file.write(line)


def flush(root: Path) -> None:
    """Return when what was saved would outlive the machine. :raises OSError:"""
    for path in (root / STATE, root):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
