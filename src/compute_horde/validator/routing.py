"""Which miner to try first. Pure: the same values and the same dice give the same order (section 11)."""

import random
from collections.abc import Iterable, Mapping, Sequence

from compute_horde.chain.port import MinerEndpoint
from compute_horde.protocol.enums import ExecutorClass

Manifest = Mapping[ExecutorClass, int]

INCIDENT_MEMORY_SECONDS = 4 * 3600
"""How long a miner's fault counts against it (section 11.3)."""


def choose(
    miners: Iterable[MinerEndpoint],
    executor_class: ExecutorClass,
    manifests: Mapping[str, Manifest],
    incidents: Mapping[str, int],
    dice: random.Random,
) -> Sequence[MinerEndpoint]:
    """All miners in the order in which to try them.

    First those that may have the class (a manifest not yet seen counts as may), then those whose last manifest had
    none, since manifests change. Within each: fewest recent incidents first, equals shuffled.
    """

    def rank(miner: MinerEndpoint) -> tuple[bool, int, float]:
        manifest = manifests.get(miner.hotkey)
        lacks = manifest is not None and not offers(manifest, executor_class)
        return lacks, incidents.get(miner.hotkey, 0), dice.random()

    return [miner for _, miner in sorted(((rank(m), m) for m in miners), key=lambda pair: pair[0])]


def offers(manifest: Manifest, executor_class: ExecutorClass) -> bool:
    """Whether a miner with this manifest has executors of the class at all, busy or not."""
    return manifest.get(executor_class, 0) > 0
