"""Whether the validator lives and can do its work, and where operators ask for it."""

from typing import Protocol

from compute_horde.storage.database import Database
from compute_horde.telemetry.health import Health, answers, flag
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.facilitator_link import FacilitatorLink
from compute_horde.validator.settings import ValidatorSettings


class Runs(Protocol):
    """What is started and stopped. Stopping without a start is fine. ``port``: where it listens, if it does."""

    @property
    def port(self) -> int | None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Nothing:
    port: int | None = None

    async def start(self) -> None:
        """Nobody wants to look."""

    async def stop(self) -> None:
        """Nothing runs."""


def health_of(database: Database, facilitator: FacilitatorLink) -> Health:
    """It lives while its loop turns; it is ready while it can keep what it is told, and is told anything."""
    connected = flag(facilitator.connected.is_set, "the facilitator has not let this validator in")
    return Health({"database": answers(database), "facilitator": connected})


def operations_of(settings: ValidatorSettings, health: Health, metrics: ValidatorMetrics) -> Runs:
    """Their server, where the operator has given it a port."""
    if settings.operations_port is None:
        return _Nothing()
    # a validator that nobody looks at starts faster and smaller without a web framework
    from compute_horde.telemetry.server import Operations  # noqa: PLC0415 - see above

    return Operations(
        health,
        metrics,
        host=settings.operations_host,
        port=settings.operations_port,
        token=settings.operations_token,
    )
