"""What a peer of ours understands beyond the existing network's messages, said once, in the handshake.

Both sides of a WebSocket send :data:`EXTENSIONS_HEADER`: the one that dials with its request, the one that is
dialled with its answer. An HTTP facilitator sends it with every answer, a client with every request. A peer that
says nothing is one of the existing network, and is sent nothing of this.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

EXTENSIONS_HEADER = "X-CH-Extensions"
"""Names of extensions, separated by blanks. Names that this version does not know are ignored."""


class Extension(StrEnum):
    """On every link: ``cancel`` and ``logs``. Between client and facilitator: all of them.

    * ``cancel``: a job can be cancelled; a client that says so is shown the status ``cancelled``
    * ``logs``: a job's output can be read while it runs
    * ``events``: ``GET /api/v1/events/`` pushes statuses
    * ``queues``: the list of jobs takes ``pending`` and ``before``, and is ordered newest first
    * ``repeatable-create``: the same signed creation sent again answers with the same job
    * ``cross-validation``: a job and its repetition on the trusted miner are linked
    """

    CANCEL = "cancel"
    LOGS = "logs"
    EVENTS = "events"
    QUEUES = "queues"
    REPEATABLE_CREATE = "repeatable-create"
    CROSS_VALIDATION = "cross-validation"


LINK_EXTENSIONS = frozenset({Extension.CANCEL, Extension.LOGS})
"""What our validators, miners and executors understand."""

HTTP_EXTENSIONS = frozenset(Extension)
"""What our facilitator offers to clients."""


def announcement(extensions: Iterable[Extension] = LINK_EXTENSIONS) -> dict[str, str]:
    """The header that tells a peer of ``extensions``."""
    return {EXTENSIONS_HEADER: " ".join(sorted(extensions))}


def announced(headers: Mapping[str, str]) -> frozenset[Extension]:
    """What the sender of these headers understands; names of headers are case-insensitive."""
    lowered = EXTENSIONS_HEADER.lower()
    text = next((value for name, value in headers.items() if name.lower() == lowered), "")
    known = {extension.value: extension for extension in Extension}
    return frozenset(known[word] for word in text.split() if word in known)
