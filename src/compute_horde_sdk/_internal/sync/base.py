"""What the generated classes stand on: opening and closing, and which synchronous job belongs to which job."""

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from compute_horde_sdk._internal.client import ComputeHordeClient as AsyncClient
from compute_horde_sdk._internal.job import ComputeHordeJob as AsyncJob
from compute_horde_sdk._internal.sync.portal import Portal

if TYPE_CHECKING:  # made from the classes here
    from compute_horde_sdk._internal.sync.generated import ComputeHordeJob


T = TypeVar("T")
U = TypeVar("U")


class Passing:
    """Whatever calls pass through. Keeps itself, and with it the client, while something is iterated."""

    _portal: Portal

    def _iterate(self, items: AsyncIterator[T], convert: Callable[[T], U]) -> Iterator[U]:
        yield from self._portal.iterate(items, convert)


class SyncClient(Passing):
    """A client of the async library, and the portal to the loop in which it lives.

    One that is dropped is closed in the background; one that is open at the interpreter's exit is closed then.
    """

    _job_class: ClassVar[type["ComputeHordeJob"]]

    def _adopt(self, client: AsyncClient) -> None:
        self._client = client
        self._portal = Portal(client.aclose)
        self._jobs: weakref.WeakValueDictionary[int, ComputeHordeJob] = weakref.WeakValueDictionary()
        weakref.finalize(self, self._portal.abandon).atexit = False  # the portal sees to that itself

    @classmethod
    def _over(cls, client: AsyncClient) -> Self:
        """One over a client made elsewhere, with a test's wiring for one."""
        made = cls.__new__(cls)
        made._adopt(client)
        return made

    def close(self) -> None:
        """Close the connections. What still waits ends with ComputeHordeConnectionError, and so do later calls."""
        self._portal.close()

    def aclose(self) -> None:
        """The same as :meth:`close`, under the asynchronous client's name."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wrap(self, job: AsyncJob) -> "ComputeHordeJob":
        """The synchronous twin; the same one each time, as long as somebody holds it."""
        found = self._jobs.get(id(job))
        if found is None:
            found = self._jobs[id(job)] = self._job_class(self, job)
        return found


class SyncJob(Passing):
    """A job of the async library. Keeps its client open."""

    def __init__(self, client: SyncClient, job: AsyncJob) -> None:
        self._client = client
        self._portal = client._portal
        self._job = job

    def _wrap(self, job: AsyncJob) -> "ComputeHordeJob":
        return self._client._wrap(job)
