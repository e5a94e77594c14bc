"""Gauges whose figures are read when somebody looks, instead of being kept in step at every change."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compute_horde.telemetry.vocabulary import bounded

log = structlog.get_logger(__name__)

Reading: TypeAlias = Mapping[tuple[str, ...], float] | float
"""A figure for each combination of label values; a plain number where there are no labels."""
Read: TypeAlias = Callable[[], Awaitable[Reading] | Reading]
"""Reads the figures; it may be cancelled, and raise anything."""


class Sampled(Collector):
    """One gauge. ``labels``: each label's name with the values that it may have."""

    def __init__(self, name: str, text: str, labels: Mapping[str, frozenset[str]], read: Read) -> None:
        self.name = name
        self._text, self._labels, self._read = text, labels, read
        self._values: dict[tuple[str, ...], float] = {}

    async def refresh(self, limit_s: float) -> bool:
        """Read anew; False where that failed. The gauge is then left out: an old figure would mislead."""
        self._values = {}
        try:
            async with asyncio.timeout(limit_s):
                self._values = self._summed(await self._reading())
        except Exception as error:  # whatever the reader's storage raises
            log.warning("a metric could not be read", metric=self.name, error=type(error).__name__)
            return False
        return True

    async def _reading(self) -> Reading:
        found = self._read()
        return await found if inspect.isawaitable(found) else found

    def _summed(self, reading: Reading) -> dict[tuple[str, ...], float]:
        figures = reading if isinstance(reading, Mapping) else {(): reading}
        values: dict[tuple[str, ...], float] = {}
        for words, figure in figures.items():
            pairs = zip(words, self._labels.values(), strict=True)
            key = tuple(bounded(word, known) for word, known in pairs)
            values[key] = values.get(key, 0) + figure
        return values

    def describe(self) -> Iterable[Metric]:
        yield self._family()

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for words, figure in sorted(self._values.items()):
            family.add_metric(words, figure)
        if self._values:
            yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self._text, labels=tuple(self._labels))
