"""Where the heavy half of the library is loaded: with a client's first call, not with its import."""

from typing import TYPE_CHECKING

from compute_horde_sdk._internal.port import Horde
from compute_horde_sdk._internal.wiring import Wiring

if TYPE_CHECKING:  # only a type
    from compute_horde.protocol.signing import Signer


def open_horde(root: str, hotkey: "Signer", wiring: Wiring) -> Horde:
    """A conversation with the facilitator at ``root`` (without a trailing slash). Nothing is sent yet."""
    # here, since it loads httpx and pydantic, which take longer than all the rest
    from compute_horde_sdk._internal.wire.session import Session  # noqa: PLC0415 - see above

    return Session(root, hotkey, wiring)
