"""The database, away and back: counted once, however many noticed."""

from compute_horde.telemetry.metrics import ServiceMetrics
from compute_horde.telemetry.vocabulary import Peer


class Outages:
    """Told by whoever uses the database how that went. Both calls cost a comparison."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._away = False

    def failed(self) -> None:
        self._away = True

    def worked(self) -> None:
        if self._away:
            self._away = False
            self._metrics.reconnected(Peer.DATABASE)
