"""The port to a container engine. :mod:`.docker` is the real one, :mod:`.fake` its tested twin."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

STDOUT, STDERR = 1, 2

Sink = Callable[[int, bytes], None]
"""Takes what a container prints: the stream (:data:`STDOUT` or :data:`STDERR`) and the bytes. Must not block."""

Note = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """A :data:`Note` of nothing."""


@dataclass(frozen=True)
class EngineFacts:
    """What the engine can do."""

    version: str
    memory_limit: bool
    pids_limit: bool
    runtimes: frozenset[str]
    cpus: int
    log_drivers: frozenset[str] = frozenset({"local"})

    @property
    def gpu(self) -> bool:
        return "nvidia" in self.runtimes


class Image(NamedTuple):
    """An image that the engine has. ``id`` names exactly this one, whatever happens to its tag."""

    id: str
    read_only_root: bool


class Mount(NamedTuple):
    """A folder of this machine and where the job sees it, writable."""

    source: Path
    target: str


@dataclass(frozen=True)
class ContainerSpec:
    """One job's container. The sandbox itself (no network, no capabilities, ...) is not a choice."""

    token: str
    image: Image
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    gpu: bool = False

    @property
    def name(self) -> str:
        return self.name_of(self.token)

    @staticmethod
    def name_of(token: str) -> str:
        return f"ch-{token}-job"


class Ended(NamedTuple):
    """How a container ended. ``killed``: the engine says for sure that neither the job nor the executor ended it,
    but an operator, or the engine when it was itself stopped or started anew. It may not know.
    """

    exit_status: int
    out_of_memory: bool
    killed: bool = False


class Age(NamedTuple):
    """How long a container has run, in seconds by the engine's clock, and whether it still does."""

    seconds: float
    running: bool


class RunningContainer(Protocol):
    """One started container. Methods may be called concurrently; after ``remove`` none but ``remove``."""

    @property
    def may_be_cut(self) -> bool:
        """Whether the engine may have dropped some output before it was read: only of one that was resumed."""
        ...

    async def age(self) -> Age:
        """See :class:`Age`."""
        ...

    async def release(self) -> None:
        """Read nothing more, and leave the container as it is."""
        ...

    async def wait(self) -> Ended:
        """Return when it has ended and all that it printed has gone to the sink. Cancelling leaves it running."""
        ...

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``. Fine when it has already ended."""
        ...

    async def written_bytes(self) -> int:
        """Size of what it wrote outside of its mounts."""
        ...

    async def remove(self) -> None:
        """Kill it if it runs and remove it with all that is its own. Fine when there is nothing left."""
        ...


class ContainerRuntime(Protocol):
    """A container engine. Every method raises :class:`~.errors.JobFailure` with ``engine_unavailable``
    when the engine does not answer.
    """

    async def check(self) -> EngineFacts:
        """Look at the engine. :raises JobFailure: ``sandbox_unsafe``: it cannot limit memory or processes."""
        ...

    async def ensure_image(self, ref: str) -> Image:
        """The image, pulled if need be. May be cancelled.

        :raises JobFailure: ``image_not_found`` or ``image_pull_failed``.
        """
        ...

    async def start(self, spec: ContainerSpec, sink: Sink, begun: Note = nothing) -> RunningContainer:
        """Create and start; every byte printed goes to ``sink``. Failed or cancelled, it leaves no container.

        ``begun`` is awaited while the container is created, and done before it is started: a container whose
        ``begun`` was never called has never run.

        :raises JobFailure: ``container_start_failed``, ``gpu_unavailable``, or ``executor_disconnected``: there is
            one of this name that has run.
        """
        ...

    async def resume(self, name: str, sink: Sink) -> RunningContainer | None:
        """Take over the container of this name; all that it printed since its beginning goes to ``sink``.

        One that was created and not started is started. None: there is no such container.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove the container of this name. Fine when there is none."""
        ...

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        """Remove containers of this very executor whose token is not alive; how many (G58).

        ``alive`` is asked after the containers are known, so that none is taken for dead that has just begun.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Twice is fine, and the next call opens new ones."""
        ...
