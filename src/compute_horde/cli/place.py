"""Which horde a command talks to, and as whom.

Each part is taken from the first that tells it: option, environment, profile, the horde that runs on this machine.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from compute_horde.cli.key import DEFAULT_HOTKEY, DEFAULT_WALLETS, KeySource
from compute_horde.cli.profile import DEFAULT_PROFILE, Profile, ProfileError, profiles_file, read_profiles
from compute_horde.cli.terminal import fail

PANEL = "Which horde, and as whom"
NO_HORDE_HINT = (
    "Start one with `horde up`, or name one: `horde login`, "
    "or --facilitator, --validator and the --wallet options."
)


def profile_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    try:
        return [name for name in read_profiles() if name.startswith(incomplete)]
    except ProfileError:
        return []


def _option(*names: str, env: str, text: str, completion: Callable[[str], list[str]] | None = None) -> Any:
    return typer.Option(
        *names,
        envvar=env,
        help=text,
        show_default=False,
        rich_help_panel=PANEL,
        autocompletion=completion,
    )


@dataclass(frozen=True)
class PlaceOptions:
    """What the command line and the environment say; None where they say nothing."""

    profile: Annotated[
        str | None, _option("--profile", env="HORDE_PROFILE", text="Profile to use.", completion=profile_names)
    ] = None
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="The folder of a local `horde up`; puts the profile aside.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    facilitator: Annotated[
        str | None, _option("--facilitator", env="HORDE_FACILITATOR_URL", text="Facilitator URL.")
    ] = None
    validator: Annotated[
        str | None, _option("--validator", env="HORDE_VALIDATOR_HOTKEY", text="Validator's hotkey.")
    ] = None
    wallet_path: Annotated[
        str | None, _option("--wallet-path", env="HORDE_WALLET_PATH", text="Wallet folder.")
    ] = None
    wallet_name: Annotated[str | None, _option("--wallet-name", env="HORDE_WALLET_NAME", text="Wallet name.")] = (
        None
    )
    wallet_hotkey: Annotated[
        str | None, _option("--wallet-hotkey", env="HORDE_WALLET_HOTKEY", text="Hotkey name.")
    ] = None
    key_file: Annotated[
        str | None, _option("--key-file", env="HORDE_KEY_FILE", text="File of one hotkey, in place of a wallet.")
    ] = None
    queue: Annotated[str | None, _option("--queue", env="HORDE_JOB_QUEUE", text="Job queue; '' for none.")] = None


@dataclass(frozen=True)
class Place:
    """Where jobs go. ``home``: the local horde's folder, where the facilitator's address was found there."""

    facilitator: str
    validator: str
    key: KeySource
    queue: str | None = None
    home: Path | None = None


def locate(asked: PlaceOptions) -> Place:
    """Put the place together. Exits with 2 where a part is missing or the profile is not usable."""
    profile = None if asked.directory else _profile(asked.profile)
    home = asked.directory or default_home()
    known = _of_profile(profile) if profile else announced(home)
    facilitator = asked.facilitator or known.get("facilitator_url", "")
    validator = asked.validator or known.get("validator_hotkey", "")
    key = _key(asked, known)
    parts = {"facilitator": facilitator, "validator": validator, "wallet": key}
    if key is None or not facilitator or not validator:
        missing = ", ".join(name for name, value in parts.items() if not value)
        fail(
            f"do not know where to send the job: {missing} not given, and no local horde is running",
            NO_HORDE_HINT,
            2,
        )
    queue = known.get("queue") if asked.queue is None else asked.queue
    at_home = not (asked.facilitator or profile)
    return Place(facilitator, validator, key, queue or None, home if at_home else None)


def place_of(profile: Profile) -> Place:
    """The place that a complete profile describes."""
    return Place(profile.facilitator, profile.validator, key_source(profile), profile.queue or None)


def key_source(profile: Profile) -> KeySource:
    """Where a complete profile's key is."""
    if profile.key_file:
        return KeySource.of_file(profile.key_file)
    return KeySource.of_wallet(profile.wallet_path, profile.wallet_name, profile.wallet_hotkey)


def announced(home: Path) -> dict[str, str]:
    """What the horde that runs on this folder says of itself; empty when none runs."""
    try:
        found = json.loads((home.expanduser() / "horde.json").read_text())
    except (OSError, ValueError):
        return {}
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def default_home() -> Path:
    """The folder that `horde up` uses unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "compute-horde"


def with_place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`PlaceOptions`, which it takes as ``asked``."""
    extra = inspect.signature(PlaceOptions).parameters
    own = inspect.signature(command).parameters

    def spread(**given: Any) -> Any:
        asked = PlaceOptions(**{name: given.pop(name) for name in extra})
        return command(asked=asked, **given)

    # typer reads a command's options from its signature
    spread.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # functions have it, the stubs do not
        [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in {**own, **extra}.items()
            if name != "asked"
        ]
    )
    spread.__annotations__ = {}
    spread.__name__, spread.__doc__ = command.__name__, command.__doc__
    return spread


def _profile(name: str | None) -> Profile | None:
    try:
        profiles = read_profiles()
    except ProfileError as error:
        fail(str(error), "Mend the file, or remove it and run `horde login`.", 2)
    if name and name not in profiles:
        known = ", ".join(profiles) or "none"
        fail(
            f"no profile {name!r} in {profiles_file()}",
            f"`horde login --profile NAME` writes one; there: {known}.",
            2,
        )
    return profiles.get(name or DEFAULT_PROFILE)


def _of_profile(profile: Profile) -> dict[str, str]:
    """Under the names that a local horde uses for the same things."""
    fields = asdict(profile)
    return {"facilitator_url": fields.pop("facilitator"), "validator_hotkey": fields.pop("validator"), **fields}


def _key(asked: PlaceOptions, known: Mapping[str, str]) -> KeySource | None:
    if asked.key_file:
        return KeySource.of_file(asked.key_file)
    wallet_asked = asked.wallet_path or asked.wallet_name or asked.wallet_hotkey
    if known.get("key_file") and not wallet_asked:
        return KeySource.of_file(known["key_file"])
    name = asked.wallet_name or known.get("wallet_name")
    if not name:
        return None
    path = asked.wallet_path or known.get("wallet_path") or DEFAULT_WALLETS
    return KeySource.of_wallet(path, name, asked.wallet_hotkey or known.get("wallet_hotkey") or DEFAULT_HOTKEY)
