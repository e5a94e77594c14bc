"""Records name their job, attempt and peer in either format, and no secret."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from typer.testing import CliRunner

from compute_horde.cli.logs import configure_logs
from compute_horde.telemetry.logs import LogFormat, bind_job, bind_peer, configure
from compute_horde.telemetry.redaction import HIDDEN, clean_text, redact

LIBRARY = "some.library"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process's: put it back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


class Log:
    """Where the records go. ``records``: as JSON."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Log:
    made = Log()
    configure("info", LogFormat.JSON, made.stream)
    return made


async def test_a_record_names_what_was_bound(log: Log) -> None:
    with bind_peer("5F-peer"), bind_job("uuid-1", 2):
        structlog.get_logger().info("job started", stage="execution")
    structlog.get_logger().info("idle")
    first, second = log.records
    assert {key: first[key] for key in ("event", "level", "job", "attempt", "peer", "stage")} == {
        "event": "job started",
        "level": "info",
        "job": "uuid-1",
        "attempt": 2,
        "peer": "5F-peer",
        "stage": "execution",
    }
    assert first["timestamp"].endswith("Z")
    assert not {"job", "attempt", "peer"} & set(second)


async def test_tasks_inherit_it_and_do_not_mix(log: Log) -> None:
    async def work(job: str) -> None:
        with bind_job(job, peer=f"peer of {job}"):
            await asyncio.sleep(0)
            await asyncio.create_task(inner())

    async def inner() -> None:
        structlog.get_logger().info("inner")

    await asyncio.gather(*(work(f"job {n}") for n in range(5)))
    assert {(record["job"], record["peer"]) for record in log.records} == {
        (f"job {n}", f"peer of job {n}") for n in range(5)
    }


def test_a_job_and_a_peer_have_one_name_each(log: Log) -> None:
    logger = structlog.get_logger()
    logger.info("of the facilitator", job_uuid="uuid-1", validator="5V", user="5U")
    logger.info("of the validator", uuid="uuid-2", miner="5M")
    with bind_job("bound", peer="bound peer"):
        logger.info("of another", job_uuid="uuid-3", miner="5M")
    assert [(record["job"], record["peer"]) for record in log.records] == [
        ("uuid-1", "5U"),
        ("uuid-2", "5M"),
        ("uuid-3", "bound peer"),
    ]
    assert not any("job_uuid" in record or "uuid" in record for record in log.records)


def test_libraries_come_out_the_same_and_only_from_warnings_on(log: Log) -> None:
    with bind_job("uuid-1"):
        logging.getLogger(LIBRARY).info("chatter")
        logging.getLogger(LIBRARY).warning("refused %s", "ws://h/v0.1/executor_interface/t0ken")
    (record,) = log.records
    assert record["event"] == f"refused ws://h/v0.1/executor_interface/{HIDDEN}"
    assert (record["logger"], record["level"], record["job"]) == (LIBRARY, "warning", "uuid-1")


def test_configuring_again_replaces_the_first(log: Log) -> None:
    second = Log()
    configure("warning", LogFormat.JSON, second.stream)
    logging.getLogger(LIBRARY).warning("once")
    structlog.get_logger().info("below the level")
    assert log.text == ""
    assert [record["event"] for record in second.records] == ["once"]


def fail_with(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_traceback_is_told_without_its_secrets(log_format: LogFormat) -> None:
    log = Log()
    configure("info", log_format, log.stream)
    for logger in (structlog.get_logger(), logging.getLogger(LIBRARY)):
        try:
            fail_with("postgresql://horde:hunter2@db/horde")
        except ValueError:
            logger.error("failed", exc_info=True)
    assert log.text.count("ValueError: postgresql://***@db/horde") == 2
    assert "hunter2" not in log.text


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    configure("info", LogFormat.TEXT, log.stream)
    structlog.get_logger().info("job ended", job_uuid="uuid-1", token="t0ken")
    assert "job ended" in log.text
    assert "job=uuid-1" in log.text
    assert "t0ken" not in log.text
    assert "\x1b" not in log.text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see postgresql://horde:hunter2@db/horde", "see postgresql://***@db/horde"),
        ("ws://h:1/v0.1/executor_interface/t0ken?x=1", "ws://h:1/v0.1/executor_interface/***?x=1"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("https://b.test/k?X-Amz-Signature=abc&part=1", "https://b.test/k?X-Amz-Signature=***&part=1"),
        ("https://b.test/k?part=1&token=abc", "https://b.test/k?part=1&token=***"),
        ("mail a@b.test, path /a@b", "mail a@b.test, path /a@b"),
        ("nothing to hide: tokens and keys", "nothing to hide: tokens and keys"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, left: str) -> None:
    assert clean_text(text) == left


def test_secrets_are_hidden_by_name_and_however_deep() -> None:
    record = {
        "event": "settings",
        "token": "t0ken",
        "registry_password": "hunter2",
        "Authorization": "Basic abc",
        "tokens_used": 3,
        "secret": None,
        "given": SecretStr("hunter2"),
        "headers": {"authorization": "Bearer abc", "accept": "text/html"},
        "urls": ("https://u:hunter2@a.test/", 1.5, True),
        "deep": {"a": {"b": {"c": {"d": {"e": "hunter2"}}}}},
    }
    told = redact(None, "info", dict(record))
    assert told["token"] == told["registry_password"] == told["Authorization"] == HIDDEN
    assert (told["tokens_used"], told["secret"], told["given"]) == (3, None, "**********")
    assert told["headers"] == {"authorization": HIDDEN, "accept": "text/html"}
    assert told["urls"] == ["https://***@a.test/", 1.5, True]
    assert told["deep"] == {"a": {"b": {"c": {"d": HIDDEN}}}}
    assert "hunter2" not in str(told)
    assert record["token"] == "t0ken"


@pytest.mark.parametrize(("word", "is_json"), [("json", True), ("text", False), ("", False), (None, False)])
def test_the_environment_says_the_format(
    word: str | None, is_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HORDE_LOG_FORMAT", raising=False)
    if word is not None:
        monkeypatch.setenv("HORDE_LOG_FORMAT", word)
    configure_logs("info")
    structlog.get_logger().info("hello")
    assert capsys.readouterr().err.startswith("{") is is_json


def test_an_argument_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HORDE_LOG_FORMAT", "text")
    configure_logs("info", LogFormat.JSON)
    structlog.get_logger().info("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


def test_a_format_that_there_is_not_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setenv("HORDE_LOG_FORMAT", "xml")
    app = typer.Typer()
    app.command()(lambda: configure_logs("info"))
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "HORDE_LOG_FORMAT must be text or json" in done.stderr


class Deaf(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "no room"), ValueError("it is closed")])
def test_a_record_that_cannot_be_written_harms_nobody(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", LogFormat.TEXT, Deaf(error))
    structlog.get_logger().info("lost")
    logging.getLogger(LIBRARY).warning("lost as well")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_without_a_reader_is_written_to_in_vain() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        configure("info", LogFormat.TEXT, stream)
        for _ in range(3):
            structlog.get_logger().info("lost")


def test_a_reader_that_has_gone_ends_no_process() -> None:
    program = (
        "import sys, structlog\n"
        "from compute_horde.cli.logs import configure_logs\n"
        "configure_logs('info')\n"
        "sys.stdin.readline()\n"
        "for number in range(3): structlog.get_logger().info('nobody reads this')\n"
        "print('went on')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    assert process.communicate("go\n", timeout=60)[0] == "went on\n"
    assert process.returncode == 0
