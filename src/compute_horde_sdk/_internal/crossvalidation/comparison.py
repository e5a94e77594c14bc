"""What a comparator is, and what it may answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.models import ComputeHordeJobResult


@dataclass(frozen=True)
class Difference:
    """One thing in which the two results disagree.

    * ``what``: ``artifact``, ``output``, ``stdout``, ``status``, ``result``, or a comparator's own word
    * ``path``: of the file; empty where there is none
    * ``own``, ``trusted``: what each side has, in short (a SHA-256 in hex, a number); None where it has nothing
    """

    what: str
    path: str = ""
    own: str | None = None
    trusted: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What a comparator found.

    * ``differences``: one is enough for a mismatch
    * ``not_compared``: in sentences; with no difference, one is enough to make the verdict inconclusive
    """

    differences: tuple[Difference, ...] = ()
    not_compared: tuple[str, ...] = ()


Answer = bool | Sequence[Difference] | Comparison
Comparator = Callable[[ComputeHordeJobResult, ComputeHordeJobResult], Answer | Awaitable[Answer]]
"""Compares the result of the user's job with the trusted one, in that order.

True, or an empty list of differences: they agree. A plain function runs in a thread, an async one on the event
loop.
"""


async def ask(comparator: Comparator, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Answer:
    """The comparator's answer. What it raises passes through.

    :raises ComputeHordeValidationError: it answered with something that is no verdict.
    """
    answer: Any = await asyncio.to_thread(_call, comparator, own, trusted)
    if inspect.isawaitable(answer):
        answer = await answer
    if isinstance(answer, Difference):
        return [answer]
    if isinstance(answer, bool | Comparison):
        return answer
    if isinstance(answer, list | tuple) and all(isinstance(item, Difference) for item in answer):
        return answer
    if type(answer).__module__ == "numpy" and type(answer).__name__ in ("bool", "bool_"):
        return bool(answer)  # of a comparison of arrays
    raise ComputeHordeValidationError(
        f"the comparator must return True, False or a list of Difference, not {type(answer).__name__}",
        field="comparator",
    )


def name_of(comparator: Comparator) -> str:
    """For the evidence."""
    return str(getattr(comparator, "__qualname__", None) or repr(comparator))


def _call(comparator: Comparator, own: ComputeHordeJobResult, trusted: ComputeHordeJobResult) -> Any:
    try:
        return comparator(own, trusted)
    except StopIteration as error:  # a future cannot carry it: the waiter would wait for ever
        raise RuntimeError("the comparator raised StopIteration") from error
