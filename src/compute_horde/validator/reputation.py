"""What the validator remembers of its miners: their manifests and their recent faults."""

import time
from collections import Counter
from collections.abc import Mapping

from compute_horde.validator.routing import INCIDENT_MEMORY_SECONDS, Manifest
from compute_horde.validator.rows import Incident
from compute_horde.validator.store import Store


class Reputation:
    """In memory, so that choosing a miner costs no query; incidents are in the database as well."""

    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self._incidents: list[Incident] = []

    async def load(self, store: Store) -> None:
        self._incidents = list(await store.incidents_since(time.time() - INCIDENT_MEMORY_SECONDS))

    def note(self, incident: Incident) -> None:
        """An incident whose row is already committed."""
        self._incidents.append(incident)

    def recent(self, now: float) -> Mapping[str, int]:
        """Incidents of each miner that still count."""
        since = now - INCIDENT_MEMORY_SECONDS
        self._incidents = [incident for incident in self._incidents if incident.at >= since]
        return Counter(incident.miner_hotkey for incident in self._incidents)
