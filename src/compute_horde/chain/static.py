"""The default chain: a TOML file, re-read when it changes."""

import tomllib
from pathlib import Path

import structlog
from pydantic import ValidationError

from compute_horde.chain.port import Directory

log = structlog.get_logger(__name__)


class ChainFileError(ValueError):
    """The chain file cannot be read. The text names the file and what to mend."""


class StaticChain:
    """A :class:`~compute_horde.chain.port.Chain` from a file.

    Keys: ``validators``, ``users``, ``signers`` (lists of ss58 addresses) and ``[[miners]]`` tables with
    ``hotkey``, ``address`` and ``port``. A change is seen at the next use. A change that cannot be read is
    logged, and the last good directory stays in force.
    """

    def __init__(self, path: Path) -> None:
        """:raises ChainFileError: there is no such file, or it cannot be read."""
        self._path = path
        self._stamp = self._look()
        self._directory = self._read()

    def directory(self) -> Directory:
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._directory = self._read()
            except ChainFileError as error:
                log.error("chain file unreadable, keeping the last good one", error=str(error))
        return self._directory

    def _look(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def _read(self) -> Directory:
        try:
            return Directory.model_validate(tomllib.loads(self._path.read_text()))
        except OSError as error:
            raise ChainFileError(f"cannot read {self._path}: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise ChainFileError(f"{self._path} is not TOML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ChainFileError(f"{self._path}: {where}: {first['msg']}") from None


class FixedChain:
    """A :class:`~compute_horde.chain.port.Chain` in memory, for tests and for one-process hordes."""

    def __init__(self, directory: Directory) -> None:
        self.current = directory

    def directory(self) -> Directory:
        return self.current
