"""A database that was away and is back."""

from compute_horde.telemetry.miner import MinerMetrics
from compute_horde.telemetry.outages import Outages


async def test_each_outage_counts_once() -> None:
    metrics = MinerMetrics()
    outages = Outages(metrics)
    outages.worked()
    for _ in range(2):
        outages.failed()
        outages.failed()
        outages.worked()
        outages.worked()
    assert b'compute_horde_miner_reconnects_total{peer="database"} 2.0' in await metrics.render()
