"""The profile file: how to reach a horde, and as whom, under a name. Keys are named in it, never kept in it.

``~/.config/compute-horde/profiles.toml`` (below ``$XDG_CONFIG_HOME`` where that is set), its
owner's only::

    [profiles.default]
    facilitator = "https://facilitator.example/"
    validator = "5F…"
    wallet_name = "default"
    wallet_hotkey = "default"
    wallet_path = "/home/me/.bittensor/wallets"
    queue = "nightly"
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DEFAULT_PROFILE = "default"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ProfileError(ValueError):
    """The profile file or a profile's name is not usable. The text says why."""


@dataclass(frozen=True)
class Profile:
    """One profile. The key is either a wallet's hotkey or the file ``key_file``; ``queue``: empty for none."""

    facilitator: str
    validator: str
    wallet_name: str = ""
    wallet_hotkey: str = ""
    wallet_path: str = ""
    key_file: str = ""
    queue: str = ""


def profiles_file() -> Path:
    """Where the profiles are kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "compute-horde" / "profiles.toml"


def check_name(name: str) -> str:
    """``name`` unchanged. :raises ProfileError: it cannot name a profile."""
    if not _NAME.fullmatch(name):
        raise ProfileError(f"{name[:80]!r} cannot name a profile: use up to 64 letters, digits, - and _")
    return name


def read_profiles() -> dict[str, Profile]:
    """All profiles by name; none where there is no file.

    :raises ProfileError: the file cannot be read, or holds something else.
    """
    file = profiles_file()
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {file}: {error}") from None
    tables = found.get("profiles", {})
    if not isinstance(tables, Mapping):
        raise ProfileError(f"{file}: profiles must be a table")
    return {name: _profile(file, name, table) for name, table in tables.items()}


def write_profiles(profiles: Mapping[str, Profile]) -> Path:
    """Replace the file's contents, in one step. Returns the file.

    :raises ProfileError: it cannot be written.
    """
    file = profiles_file()
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(_toml(profiles))
        fresh.replace(file)
    except OSError as error:
        raise ProfileError(f"cannot write {file}: {error.strerror}") from None
    return file


def _profile(file: Path, name: str, table: object) -> Profile:
    if not isinstance(table, Mapping) or not all(isinstance(value, str) for value in table.values()):
        raise ProfileError(f"{file}: [profiles.{name}] must be a table of texts")
    known = {field.name for field in fields(Profile)}
    if strange := sorted(set(table) - known):
        raise ProfileError(f"{file}: [profiles.{name}] has unknown keys: {', '.join(strange)}")
    if missing := sorted({"facilitator", "validator"} - set(table)):
        raise ProfileError(f"{file}: [profiles.{name}] lacks {' and '.join(missing)}")
    return Profile(**table)


def _toml(profiles: Mapping[str, Profile]) -> str:
    lines = ["# Written by `horde login`. Names of keys only: the keys stay where they are."]
    for name, profile in sorted(profiles.items()):
        lines += ["", f"[profiles.{_text(name)}]"]
        lines += [f"{key} = {_text(value)}" for key, value in asdict(profile).items() if value]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A TOML basic string."""
    return '"' + "".join(_escaped(char) for char in value) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"
