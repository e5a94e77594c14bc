"""An explanation, read from what the facilitator answers. Pure."""

from compute_horde.protocol.explanation import Explanation as WireExplanation
from compute_horde.protocol.explanation import MinerTrial as WireTrial
from compute_horde_sdk._internal.explanation import Explanation, MinerTrial
from compute_horde_sdk._internal.models import ComputeHordeJobStatus
from compute_horde_sdk._internal.wire.reading import place_of


def explanation_of(wire: WireExplanation) -> Explanation:
    """The public form."""
    return Explanation(
        job_uuid=wire.job_uuid,
        state=ComputeHordeJobStatus(wire.state),
        summary=wire.summary,
        reported_by=wire.reported_by,
        attempt=wire.attempt,
        attempts=wire.attempts,
        queue=place_of(wire.queue) if wire.queue else None,
        queue_time_left=wire.queue_time_left_s,
        miners=tuple(map(_trial_of, wire.miners)),
        remedies=tuple(wire.remedies),
    )


def _trial_of(wire: WireTrial) -> MinerTrial:
    return MinerTrial(wire.miner_hotkey, wire.answer, wire.message, wire.remedy, wire.tries, wire.last_at)
