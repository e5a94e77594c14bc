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
    """On every WebSocket: ``cancel`` and ``logs``. To clients a facilitator offers :data:`HTTP_EXTENSIONS`.

    * ``cancel``: a job can be cancelled; a client that says so is shown the status ``cancelled``
    * ``logs``: a job's output can be read while it runs
    * ``events``: ``GET /api/v1/events/`` pushes statuses
    * ``queues``: the list of jobs takes ``pending`` and ``before``, and is ordered newest first
    * ``repeatable-create``: the same signed creation sent again answers with the same job
    * ``cross-validation``: a job and its repetition on the trusted miner are linked
    * ``queue``: a job may wait in its validator and be tried again. Between validator and facilitator: the status
      ``queued``, attempts, positions, wishes about scheduling. A client that says so is shown all of them
    * ``explain``: why a job has not started can be asked for, from client to validator
    * ``claims``: facilitators give a job to one instance of a validator; the others are refused it
    * ``capacity``: miners tell validators how many executors are free
    """

    CANCEL = "cancel"
    LOGS = "logs"
    EVENTS = "events"
    QUEUES = "queues"
    REPEATABLE_CREATE = "repeatable-create"
    CROSS_VALIDATION = "cross-validation"
    QUEUE = "queue"
    EXPLAIN = "explain"
    CLAIMS = "claims"
    CAPACITY = "capacity"


LINK_EXTENSIONS = frozenset(
    {
        Extension.CANCEL,
        Extension.LOGS,
        Extension.QUEUE,
        Extension.EXPLAIN,
        Extension.CLAIMS,
        Extension.CAPACITY,
    }
)
"""What our services understand on WebSockets; each means something on some links only."""

HTTP_EXTENSIONS = frozenset(Extension) - {Extension.CLAIMS, Extension.CAPACITY}
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
