"""What the facilitator's metrics are told of its jobs."""

import re
from collections import OrderedDict

import structlog

from compute_horde.facilitator.statuses import Moved
from compute_horde.facilitator.store import JobStore
from compute_horde.protocol.details import StatusMetadata
from compute_horde.protocol.enums import ExecutorClass, Fault
from compute_horde.protocol.problems import Problem
from compute_horde.storage.errors import StorageError
from compute_horde.telemetry.facilitator import FacilitatorMetrics

log = structlog.get_logger(__name__)
KNOWN_CLASSES = 10_000
_CLASS = re.compile(r'"executor_class":"([^"\\]+)"')


class Counting:
    """Counts what was stored.

    The class of a job that was created here is remembered; of any other it is read, once a job.
    """

    def __init__(self, metrics: FacilitatorMetrics, store: JobStore) -> None:
        self.metrics = metrics
        self._store = store
        self._classes: OrderedDict[str, ExecutorClass] = OrderedDict()

    def created(self, uuid: str, executor_class: ExecutorClass) -> None:
        self._classes[uuid] = executor_class
        if len(self._classes) > KNOWN_CLASSES:
            self._classes.popitem(last=False)

    async def moved(self, uuid: str, moved: Moved, told: StatusMetadata | None) -> None:
        """A status was stored. Never raises: a figure is worth less than an answer."""
        try:
            found = self._classes.get(uuid) or await self._read_class(uuid)
        except StorageError as error:
            log.debug("a stage was not counted", job_uuid=uuid, error=type(error).__name__)
            found = None
        if found is not None:
            self.metrics.stage(moved.before, moved.state, found, moved.in_stage_s)
        if moved.state.is_terminal:
            self._classes.pop(uuid, None)
            self.metrics.ended(moved.state, fault_of(told), moved.age_s)

    async def _read_class(self, uuid: str) -> ExecutorClass | None:
        found = class_in(await self._store.request_head(uuid))
        if found is not None:
            self.created(uuid, found)
        return found


def class_in(request_head: str) -> ExecutorClass | None:
    """The class in the beginning of a ``JobRequest`` as JSON; None: it is not there, or not known."""
    found = _CLASS.search(request_head)
    return ExecutorClass(found[1]) if found and found[1] in set(ExecutorClass) else None


def fault_of(told: StatusMetadata | None) -> Fault | None:
    """Whose doing a failure was: ``nobody`` where an older peer does not say; None: there was none."""
    if told is None:
        return None
    for details in (told.job_failure_details, told.horde_failure_details, told.job_rejection_details):
        if details is not None:
            found = Problem.from_context(details.context, details.message)
            return found.fault if found else Fault.NOBODY
    return None
