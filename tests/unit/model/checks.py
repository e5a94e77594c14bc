"""What must hold of a world at any moment, and what when everything is quiet. Read from the databases alone."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.model.world import MINERS, World

from compute_horde.facilitator.ending import NEVER_SENT, NOT_CONFIRMED, NOT_STOPPED
from compute_horde.lifecycle.states import PROGRESS, JobState
from compute_horde.protocol.scheduling import MAX_ATTEMPTS, attempt_uuid

OUTPUT = "begun\nended\n"


class Status(NamedTuple):
    """One entry of a job's history at the facilitator."""

    state: JobState
    attempt: int
    metadata: dict[str, Any]


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def histories(world: World) -> dict[str, list[Status]]:
    found: dict[str, list[Status]] = {}
    query = "SELECT job_uuid, status, attempt, metadata FROM job_status ORDER BY id"
    for uuid, state, attempt, metadata in rows(world.database("facilitator"), query):
        found.setdefault(uuid, []).append(Status(JobState(state), attempt, json.loads(metadata)))
    return found


def check_always(world: World) -> None:
    """The promises that no moment breaks."""
    for uuid, history in histories(world).items():
        check_history(uuid, history)
    for machine in world.machines.values():
        again = [token for token, count in machine.engine.starts.items() if count > 1]
        assert not again, f"containers were started twice: {again}"
    ends = runs_of_attempts(world)
    assert max(ends.values(), default=0) <= 1, f"attempts ran to their end twice: {ends}"


def check_history(uuid: str, history: list[Status]) -> None:
    """Forward only but by a new attempt; one end, which is the last."""
    told = [f"{status.state.value}/{status.attempt}" for status in history]
    assert history[0].state is JobState.SENT, (uuid, told)
    for before, after in pairwise(history):
        assert not before.state.is_terminal, (uuid, told)
        if after.attempt != before.attempt:
            assert before.attempt < after.attempt <= MAX_ATTEMPTS, (uuid, told)
        elif not after.state.is_terminal:
            assert PROGRESS.index(before.state) < PROGRESS.index(after.state), (uuid, told)


def runs_of_attempts(world: World) -> Counter[str]:
    """How often the container of each attempt ran to its end, on whatever machine."""
    found: Counter[str] = Counter()
    for name, machine in world.machines.items():
        if machine.engine.ends:
            names = dict(rows(world.database(name), "SELECT token, job_uuid FROM jobs"))
            for token, count in machine.engine.ends.items():
                found[names[token]] += count
    return found


def unfinished(world: World) -> list[str]:
    """Jobs that have not ended somewhere."""
    ended = tuple(state.value for state in JobState if state.is_terminal)
    here = [uuid for uuid, history in histories(world).items() if not history[-1].state.is_terminal]
    for service in ("validator", *MINERS):
        key = "uuid" if service == "validator" else "job_uuid"
        left = rows(world.database(service), f"SELECT {key} FROM jobs WHERE state NOT IN {ended}")
        here += [f"{uuid} at {service}" for (uuid,) in left]
    return here


def check_quiet(world: World, created: list[str]) -> None:
    """Everybody tells the same of every job, and what was printed is there."""
    found = histories(world)
    at_validator = dict(rows(world.database("validator"), "SELECT uuid, state FROM jobs"))
    for uuid in created:
        last = found[uuid][-1]
        assert last.state.is_terminal, uuid
        if not _ended_by_facilitator(last):
            assert at_validator.get(uuid) == last.state.value, (uuid, last, at_validator.get(uuid))
            _check_miner(world, uuid, last)
        if last.state is JobState.COMPLETED and not last.metadata["miner_response"].get("timed_out"):
            assert last.metadata["miner_response"]["docker_process_stdout"] == OUTPUT, (uuid, last)


def _ended_by_facilitator(last: Status) -> bool:
    """It did not hear of the end in time, so the validator may know of another one."""
    failure = last.metadata.get("horde_failure_details") or last.metadata.get("job_failure_details") or {}
    cancelled = (NEVER_SENT, NOT_STOPPED, NOT_CONFIRMED)
    return failure.get("reported_by") == "facilitator" or failure.get("message") in cancelled


def _check_miner(world: World, uuid: str, last: Status) -> None:
    name = attempt_uuid(uuid, last.attempt)
    query = f"SELECT state FROM jobs WHERE job_uuid = '{name}'"
    told = [state for miner in MINERS for (state,) in rows(world.database(miner), query)]
    if last.state is JobState.COMPLETED:
        assert told.count(JobState.COMPLETED.value) == 1, (uuid, last.state, told)
    elif last.state is JobState.FAILED:
        assert JobState.COMPLETED.value not in told, (uuid, last.state, told)
