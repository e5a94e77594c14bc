"""Whether a container was stopped from outside: the engine keeps a record of the signals that it sent."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from aiodocker import DockerError
from aiodocker.containers import DockerContainer

log = structlog.get_logger(__name__)

NO_CONNECTION = 900
"""The status of aiodocker's own errors: the engine has said nothing."""

_LATE_SECONDS = 2
"""The record of an end may be written so long after it."""

_ANSWER_SECONDS = 5


async def was_killed(container: DockerContainer, state: Mapping[str, Any]) -> bool:
    """Whether the engine sent it a signal before its end. False also where the record does not reach back so far:
    it holds some 256 events, and none from before the engine's own start.

    ``state``: what the engine says of the container, which has ended. :raises DockerError, aiohttp.ClientError:
    it is gone.
    """
    since, until = _moment(state.get("StartedAt")), _moment(state.get("FinishedAt"))
    if since is None or until is None or until <= since:
        return False
    late = until + timedelta(seconds=_LATE_SECONDS)
    filters = json.dumps({"type": ["container"], "container": [container.id]})
    params = {"since": _shown(since), "until": _shown(late), "filters": filters}
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await _has_kill(container, params)
    except DockerError as error:
        if error.status == NO_CONNECTION:
            raise
        why = error.message
    except (TimeoutError, ValueError, LookupError, TypeError) as error:
        why = type(error).__name__
    log.warning("the engine does not say what became of a container", why=why)
    return False


async def _has_kill(container: DockerContainer, params: Mapping[str, str]) -> bool:
    """A signal that ends a container is on the record before its end, and both are there in the end."""
    async with container.docker._query("events", method="GET", params=params) as response:
        with contextlib.closing(response):  # the engine may go on telling
            async for line in response.content:
                match json.loads(line)["Action"]:
                    case "kill":
                        return True
                    case "die" | "died":  # Podman's word
                        return False
    return False


def _moment(text: object) -> datetime | None:
    """None for the year 1, by which an engine says never, and for what cannot be read."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.year > 1 else None


def _shown(moment: datetime) -> str:
    """Seconds since 1970, to the microsecond: not every engine reads anything else."""
    return f"{int(moment.timestamp())}.{moment.microsecond:06}"
