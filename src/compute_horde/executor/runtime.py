"""The port to a container engine. :mod:`.docker` is the real one, :mod:`.fake` its tested twin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

STDOUT, STDERR = 1, 2

Sink = Callable[[int, bytes], None]
"""Takes what a container prints: the stream (:data:`STDOUT` or :data:`STDERR`) and the bytes. Must not block."""


@dataclass(frozen=True)
class EngineFacts:
    """What the engine can do."""

    version: str
    memory_limit: bool
    pids_limit: bool
    runtimes: frozenset[str]
    cpus: int

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
        return f"ch-{self.token}-job"


class Ended(NamedTuple):
    """How a container ended."""

    exit_status: int
    out_of_memory: bool


class RunningContainer(Protocol):
    """One started container. Methods may be called concurrently; after ``remove`` none but ``remove``."""

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

    async def start(self, spec: ContainerSpec, sink: Sink) -> RunningContainer:
        """Create and start; every byte printed goes to ``sink``. Failed or cancelled, it leaves no container.

        :raises JobFailure: ``container_start_failed``, or ``gpu_unavailable``.
        """
        ...

    async def remove_leftovers(self, alive: Callable[[], frozenset[str]]) -> int:
        """Remove containers of this very executor whose token is not alive; how many (G58).

        ``alive`` is asked after the containers are known, so that none is taken for dead that has just begun.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Twice is fine, and the next call opens new ones."""
        ...
