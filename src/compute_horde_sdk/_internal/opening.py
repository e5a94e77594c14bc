"""Where the heavy half of the library is loaded: with a client's first call, not with its import."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compute_horde_sdk._internal.port import Horde
from compute_horde_sdk._internal.wiring import Wiring

if TYPE_CHECKING:  # only a type
    from compute_horde.protocol.signing import Signer

HTTPX_COMMAND = "httpx._main"


def open_horde(root: str, hotkey: "Signer", wiring: Wiring) -> Horde:
    """A conversation with the facilitator at ``root`` (without a trailing slash). Nothing is sent yet."""
    with _without_httpx_command():
        # here, since it loads httpx and pydantic, which take longer than all the rest
        from compute_horde_sdk._internal.wire.session import Session  # noqa: PLC0415 - see above

    return Session(root, hotkey, wiring)


@contextmanager
def _without_httpx_command() -> Iterator[None]:
    """Where rich and click are there, httpx loads its own command line, a quarter of the whole time.

    It does without it where it cannot be imported, as is the case for the length of this context.
    """
    modules: dict[str, object] = sys.modules  # type: ignore[assignment] # None in it is documented: not importable
    if "httpx" in modules:
        yield
        return
    modules[HTTPX_COMMAND] = None
    try:
        yield
    finally:
        modules.pop(HTTPX_COMMAND, None)
