"""Structured logs: one line an event, as text or JSON, with the job, attempt and peer that it is about."""

import contextlib
import logging
from collections.abc import Iterator, MutableMapping
from enum import StrEnum
from typing import Any, TextIO, TypeAlias, cast

import structlog
from structlog.typing import Processor

from compute_horde.telemetry.lasting import LastingStream
from compute_horde.telemetry.redaction import redact

JOB, ATTEMPT, PEER = "job", "attempt", "peer"
_OTHER_NAMES_OF_A_JOB = ("job_uuid", "uuid")
_PEERS = ("user", "miner", "validator")
Record: TypeAlias = MutableMapping[str, Any]


class LogFormat(StrEnum):
    """``text``: for a person. ``json``: one object a line, for a log store."""

    TEXT = "text"
    JSON = "json"


@contextlib.contextmanager
def bind_job(job: str, attempt: int | None = None, peer: str | None = None) -> Iterator[None]:
    """Let each record of this block, and of the tasks begun in it, name the job.

    :param peer: the other end's hotkey or address.
    """
    told = {JOB: job, ATTEMPT: attempt, PEER: peer}
    with structlog.contextvars.bound_contextvars(**{k: v for k, v in told.items() if v is not None}):
        yield


@contextlib.contextmanager
def bind_peer(peer: str) -> Iterator[None]:
    """Let each record of this block, and of the tasks begun in it, name who is at the other end."""
    with structlog.contextvars.bound_contextvars(**{PEER: peer}):
        yield


def configure(level: str, log_format: LogFormat, stream: TextIO) -> None:
    """Set up this process's logs. ``level``: debug, info, warning or error.

    What ``stream`` does not take is lost; writing a record never raises.
    """
    lasting = cast("TextIO", LastingStream(stream))
    number = getattr(logging, level.upper())
    finish = [name_the_peer, *_STAMPS, redact, _renderer(log_format, lasting)]
    _take_the_libraries(max(number, logging.WARNING), finish, lasting)
    structlog.configure(
        processors=[name_the_job, structlog.contextvars.merge_contextvars, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(lasting),
        cache_logger_on_first_use=True,
    )


def name_the_job(_logger: object, _method: str, record: Record) -> Record:
    """A structlog processor: a job is always ``job``. What the record itself names goes before what was bound."""
    for name in _OTHER_NAMES_OF_A_JOB:
        if name in record and JOB not in record:
            record[JOB] = record.pop(name)
    return record


def name_the_peer(_logger: object, _method: str, record: Record) -> Record:
    """A structlog processor: where no peer was bound, it is whom the record speaks of."""
    named = next((record[name] for name in _PEERS if name in record), None)
    if named is not None:
        record.setdefault(PEER, named)
    return record


_STAMPS: list[Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,  # now, so that a traceback's text is looked through for secrets, too
]


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)


class _LibrariesHandler(logging.StreamHandler[TextIO]):
    """Records of the standard library's loggers, in the form of ours. A second one replaces the first."""


def _take_the_libraries(level: int, finish: list[Processor], stream: TextIO) -> None:
    handler = _LibrariesHandler(stream)
    of_structlog = structlog.stdlib.ProcessorFormatter
    before: list[Processor] = [structlog.stdlib.add_logger_name, structlog.contextvars.merge_contextvars]
    handler.setFormatter(
        of_structlog(foreign_pre_chain=before, processors=[of_structlog.remove_processors_meta, *finish])
    )
    root = logging.getLogger()
    for old in [found for found in root.handlers if isinstance(found, _LibrariesHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
