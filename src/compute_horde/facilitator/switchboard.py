"""Which of a validator's connections, here or at another replica, a job's messages go to."""

from collections.abc import Callable, Sequence

from compute_horde.facilitator.registry import LinkRegistry, LiveLink
from compute_horde.facilitator.rows import Outline
from compute_horde.facilitator.validators import Link, Links


def choose(job: Outline, live: Sequence[LiveLink]) -> LiveLink | None:
    """The link that reported for the job last, else one to the same instance, else the newest.

    ``live``: the newest first. Every replica chooses the same one.
    """
    for fits in (
        lambda link: link.id == job.given_to,
        lambda link: job.holder is not None and link.instance == job.holder,
        lambda _: True,
    ):
        if found := next(filter(fits, live), None):
            return found
    return None


def replaces(new: Link, old: LiveLink) -> bool:
    """Whether a connection that was just made takes over what the other was given.

    A validator that connects again may not have heard what went over its last connection, and knows what it has
    seen. Another instance does not.
    """
    return new.instance is None or old.instance is None or new.instance == old.instance


class Switchboard:
    """``clock``: the steady one."""

    def __init__(self, links: Links, registry: LinkRegistry, clock: Callable[[], float]) -> None:
        self._links, self._registry, self._clock = links, registry, clock

    def here(self, validator: str) -> Link | None:
        """The validator's newest fresh connection to this replica."""
        return self._links.usable(validator, self._clock())

    async def live(self, validator: str) -> list[LiveLink]:
        """The validator's connections to any replica, the newest first; not those here that are silent."""
        now = self._clock()
        return [
            link
            for link in await self._registry.live(validator)
            if link.owner != self._registry.owner or self._links.is_fresh(self._links.get(link.id), now)
        ]

    async def find(self, job: Outline) -> Link | LiveLink | None:
        """Where messages about a job go; None: its validator is not connected. It costs a query at most."""
        given = self._links.get(job.given_to)
        if given and self._links.is_fresh(given, self._clock()):
            return given
        chosen = choose(job, await self.live(job.validator))
        if chosen is None:
            return self.here(job.validator)
        return self._links.get(chosen.id) or chosen

    async def last_seen(self, validator: str) -> float | None:
        """When (UNIX seconds) the validator was connected last."""
        return await self._registry.last_seen(validator)
