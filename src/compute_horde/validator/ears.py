"""What hears what miners say of themselves, whatever job a connection is for."""

from typing import Protocol

from compute_horde.protocol.scheduling import FreeExecutors
from compute_horde.validator.routing import Manifest


class Ears(Protocol):
    """What hears what miners say of themselves."""

    def reached(self, hotkey: str, manifest: Manifest) -> None: ...

    def lost(self, hotkey: str) -> None: ...

    def line_opened(self, hotkey: str) -> None: ...

    def line_closed(self, hotkey: str) -> None: ...

    def pushed(self, hotkey: str, free: FreeExecutors) -> None: ...


class Deaf:
    """Nobody wants to know."""

    def reached(self, hotkey: str, manifest: Manifest) -> None:
        pass

    def lost(self, hotkey: str) -> None:
        pass

    def line_opened(self, hotkey: str) -> None:
        pass

    def line_closed(self, hotkey: str) -> None:
        pass

    def pushed(self, hotkey: str, free: FreeExecutors) -> None:
        pass
