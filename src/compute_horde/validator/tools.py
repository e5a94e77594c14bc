"""What every job is driven with; made once by the service."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from compute_horde.protocol.signing import Signer
from compute_horde.telemetry.validator import ValidatorMetrics
from compute_horde.validator.claims import Claims
from compute_horde.validator.counting import Counting
from compute_horde.validator.disk import Disk
from compute_horde.validator.dispatch import Dispatcher
from compute_horde.validator.journal import Journal
from compute_horde.validator.logs import LogDesk
from compute_horde.validator.matcher import Matcher
from compute_horde.validator.queue.estimate import RunTimes
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.store import Store
from compute_horde.validator.supply import Supply

Pauses = Callable[[], Iterator[float]]


@dataclass(frozen=True)
class Tools:
    """``pauses``: between attempts to reach a peer."""

    settings: ValidatorSettings
    signer: Signer
    store: Store
    journal: Journal
    claims: Claims
    dispatcher: Dispatcher
    matcher: Matcher
    supply: Supply
    logs: LogDesk
    run_times: RunTimes
    disk: Disk
    counting: Counting
    metrics: ValidatorMetrics
    pauses: Pauses
