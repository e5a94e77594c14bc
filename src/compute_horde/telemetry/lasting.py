"""A stream for logs that outlives its reader: a record that cannot be written must not end a job."""

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


class LastingStream:
    """Writes to another stream, and loses what that one does not take: its reader has gone, its disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._unharmed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unharmed():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @contextlib.contextmanager
    def _unharmed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._to_nowhere()
        except (OSError, ValueError):  # ValueError: it is closed
            return

    def _to_nowhere(self) -> None:
        """Nobody will read it again; what is buffered would fail once more at the interpreter's end."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
