"""What the real runtime does with an engine that goes away, or answers strangely, without an engine."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from aiodocker import DockerError

from compute_horde.executor import docker_events
from compute_horde.executor.docker_container import DockerHandle
from compute_horde.executor.docker_events import NO_CONNECTION, was_killed
from compute_horde.executor.errors import JobFailure

ENDED = {
    "ExitCode": 137,
    "StartedAt": "2026-03-04T05:06:07.123456789Z",
    "FinishedAt": "2026-03-04T05:06:08.1Z",
    "OOMKilled": False,
}
NEVER = "0001-01-01T00:00:00Z"


class Container:
    """Stops by raising."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def stop(self, t: int) -> None:
        raise self._error


def handle(error: Exception) -> DockerHandle:
    return DockerHandle(cast("Any", Container(error)))


async def test_an_engine_that_is_gone_while_a_container_is_stopped() -> None:
    with pytest.raises(JobFailure) as caught:
        await handle(aiohttp.ServerDisconnectedError()).stop(1)
    assert caught.value.problem.code == "engine_unavailable"


async def test_a_container_that_has_ended_already_needs_no_stopping() -> None:
    await handle(DockerError(304, "not modified")).stop(1)


class Recorder:
    """A container, the engine behind it, and the answer about its events: lines, then an error or silence."""

    id = "c0ffee"

    def __init__(self, *lines: object, error: BaseException | None = None, silent: bool = False) -> None:
        self.docker = self.content = self
        self._lines, self._error, self._silent = list(lines), error, silent
        self.asked, self.closed = list[dict[str, str]](), False

    @contextlib.asynccontextmanager
    async def _query(self, path: str, method: str, params: dict[str, str]) -> AsyncIterator["Recorder"]:
        assert (path, method) == ("events", "GET")
        self.asked.append(params)
        if self._error is not None:
            raise self._error
        yield self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            yield json.dumps(line).encode() + b"\n" if isinstance(line, dict) else str(line).encode()
        if self._silent:
            await asyncio.Event().wait()

    def close(self) -> None:
        self.closed = True


def event(action: str) -> dict[str, str]:
    return {"Action": action}


async def ask(recorder: Recorder, **state: Any) -> bool:
    return await was_killed(cast("Any", recorder), {**ENDED, **state})


@pytest.mark.parametrize(
    ("actions", "killed"),
    [
        (["start", "kill"], True),
        (["start", "kill", "die"], True),
        (["start", "die"], False),
        (["start", "oom", "died", "kill"], False),
        (["start"], False),
        ([], False),
    ],
)
async def test_the_record_of_a_signal_is_looked_for_up_to_the_end(actions: list[str], *, killed: bool) -> None:
    recorder = Recorder(*map(event, actions))
    assert await ask(recorder) is killed
    (asked,) = recorder.asked
    assert (asked["since"], asked["until"]) == ("1772600767.123456", "1772600770.100000")
    assert json.loads(asked["filters"]) == {"type": ["container"], "container": ["c0ffee"]}
    assert recorder.closed


async def test_an_engine_that_goes_on_telling_is_left_in_the_middle() -> None:
    recorder = Recorder(event("die"), silent=True)
    assert not await ask(recorder)
    assert recorder.closed


@pytest.mark.parametrize(
    "state",
    [{"FinishedAt": NEVER}, {"StartedAt": NEVER}, {"FinishedAt": ""}, {"FinishedAt": "2026-03-04T05:06:07Z"}],
)
async def test_what_has_not_run_and_ended_was_not_killed(state: Any) -> None:
    recorder = Recorder(event("kill"))
    assert not await ask(recorder, **state)
    assert recorder.asked == []


@pytest.mark.parametrize(
    "recorder",
    [
        Recorder(error=DockerError(403, "forbidden by a proxy")),
        Recorder(error=ValueError("a line is too long")),
        Recorder("nonsense"),
        Recorder({"status": "kill"}),
        Recorder("[]"),
        Recorder(silent=True),
    ],
)
async def test_an_engine_that_does_not_say_is_not_guessed_at(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_events, "_ANSWER_SECONDS", 0.01)
    assert not await ask(recorder)


@pytest.mark.parametrize(
    "error", [DockerError(NO_CONNECTION, "cannot connect"), aiohttp.ServerDisconnectedError()]
)
async def test_an_engine_that_is_gone_is_no_answer(error: Exception) -> None:
    with pytest.raises(type(error)):
        await ask(Recorder(error=error))


class Ended:
    """A container that has ended, and an engine that goes away with the question ``gone``."""

    def __init__(self, status: int, gone: str = "") -> None:
        self._status, self._gone, self.docker = status, gone, Recorder(event("kill"))
        self.id = self.docker.id

    async def wait(self) -> dict[str, int]:
        self._fail("wait")
        return {"StatusCode": self._status}

    async def show(self) -> dict[str, Any]:
        self._fail("show")
        return {"State": {**ENDED, "OOMKilled": True}}

    def _fail(self, question: str) -> None:
        if self._gone == question:
            raise aiohttp.ServerDisconnectedError


@pytest.mark.parametrize("question", ["wait", "show"])
async def test_an_engine_that_goes_while_it_is_asked_how_a_container_ended(question: str) -> None:
    with pytest.raises(JobFailure) as caught:
        await DockerHandle(cast("Any", Ended(1, question))).wait()
    assert caught.value.problem.code == "engine_unavailable"


@pytest.mark.parametrize(("status", "out_of_memory"), [(0, False), (137, True)])
async def test_a_part_of_a_job_that_was_killed_for_its_memory_does_not_fail_it(
    status: int, *, out_of_memory: bool
) -> None:
    ended = await DockerHandle(cast("Any", Ended(status))).wait()
    assert ended == (status, out_of_memory, True)
