"""``horde login``, ``logout`` and ``profiles``: where jobs go, kept under a name."""

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from compute_horde.cli.as_json import one_line
from compute_horde.cli.key import DEFAULT_HOTKEY, DEFAULT_WALLETS, is_address
from compute_horde.cli.link import Link, failing_readably
from compute_horde.cli.place import (
    PlaceOptions,
    announced,
    default_home,
    key_source,
    place_of,
    profile_names,
    with_place_options,
)
from compute_horde.cli.profile import (
    DEFAULT_PROFILE,
    Profile,
    ProfileError,
    check_name,
    profiles_file,
    read_profiles,
    write_profiles,
)
from compute_horde.cli.terminal import fail, run_loop

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
MEND_HINT = "Mend the file, or remove it and run `horde login`."


@with_place_options
def login(
    ctx: typer.Context,
    asked: PlaceOptions,
    check: Annotated[bool, typer.Option(help="Log in before the profile is written.")] = True,
    ask: Annotated[
        bool | None, typer.Option(help="Ask for what no option tells.", show_default="on a terminal")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check how to reach a horde, and keep it as a profile for the other commands.

    On a terminal it asks for what no option tells. A profile that is there is changed in what the options say.
    The profile `default` is used when no other is named; with --dir it is filled from the local horde there.
    The key itself is not copied: the profile says where it is.

    --json: profile, file, facilitator, validator, wallet_name, wallet_hotkey, wallet_path, key_file, queue,
    hotkey.
    """
    name = _name(asked.profile)
    known = _profiles()
    wanted = _wanted(asked, known.get(name))
    if sys.stdin.isatty() if ask is None else ask:
        wanted = _ask(asked, wanted)
    _check_complete(wanted)
    link = Link(ctx, place_of(wanted), quiet=as_json)
    hotkey = str(link.client.hotkey.ss58_address)
    if check:
        run_loop(_log_in(link))
    file = _write({**known, name: wanted})
    if as_json:
        typer.echo(one_line({"profile": name, "file": str(file), **asdict(wanted), "hotkey": hotkey}))
    else:
        typer.echo(f"{'logged in' if check else 'not checked'}: {hotkey} at {wanted.facilitator}")
        typer.echo(f"profile {name} is in {file}")


def logout(
    profile: Annotated[
        str,
        typer.Option(envvar="HORDE_PROFILE", help="Profile to forget.", autocompletion=profile_names),
    ] = DEFAULT_PROFILE,
    as_json: AsJson = False,
) -> None:
    """Forget a profile. The key it names stays where it is.

    --json: profile, file.
    """
    known = _profiles()
    if profile not in known:
        fail(f"no profile {profile!r} in {profiles_file()}", f"There: {', '.join(known) or 'none'}.", 2)
    file = _write({name: kept for name, kept in known.items() if name != profile})
    typer.echo(one_line({"profile": profile, "file": str(file)}) if as_json else f"profile {profile} is forgotten")


def profiles(as_json: AsJson = False) -> None:
    """List the profiles that `horde login` wrote.

    --json: profile, facilitator, validator, wallet_name, wallet_hotkey, wallet_path, key_file, queue.
    """
    known = _profiles()
    for name, kept in known.items():
        if as_json:
            typer.echo(one_line({"profile": name, **asdict(kept)}))
        else:
            queue = f", queue {kept.queue}" if kept.queue else ""
            typer.echo(f"{name}: {kept.facilitator}, validator {kept.validator}, {_key_text(kept)}{queue}")
    if not known:
        typer.echo(f"no profiles in {profiles_file()}; `horde login` writes one", err=True)


async def _log_in(link: Link) -> None:
    async with failing_readably(), link:
        await link.during(link.client.authenticate(), lambda: "logging in")


def _wanted(asked: PlaceOptions, kept: Profile | None) -> Profile:
    """What the options say, over the local horde of --dir, over the profile that is there."""
    base = asdict(kept) if kept else dict.fromkeys(asdict(Profile("", "")), "")
    if asked.directory:
        base |= _of_horde(announced(asked.directory))
    options = {key: value for key, value in vars(asked).items() if key in base and value is not None}
    if asked.key_file:
        base |= {"wallet_name": "", "wallet_hotkey": "", "wallet_path": ""}
    elif asked.wallet_name or asked.wallet_hotkey or asked.wallet_path:
        base["key_file"] = ""
    return _in_full(Profile(**{**base, **options}))


def _of_horde(found: dict[str, str]) -> dict[str, str]:
    names = {"facilitator_url": "facilitator", "validator_hotkey": "validator"}
    return {names.get(key, key): value for key, value in found.items() if key != "pid"}


def _ask(asked: PlaceOptions, wanted: Profile) -> Profile:
    """Ask for what the options leave open; what is known already is offered."""
    local = _of_horde(announced(default_home())) if not wanted.facilitator else {}

    def answer(field: str, question: str, otherwise: str = "") -> str:
        known = getattr(wanted, field)
        if getattr(asked, field) is not None:
            return str(known)
        return str(typer.prompt(question, default=known or local.get(field) or otherwise or None, err=True))

    found = {
        "facilitator": answer("facilitator", "Facilitator URL"),
        "validator": answer("validator", "Validator's hotkey"),
    }
    if not wanted.key_file:
        found |= {
            "wallet_path": answer("wallet_path", "Wallet folder", DEFAULT_WALLETS),
            "wallet_name": answer("wallet_name", "Wallet name", "default"),
            "wallet_hotkey": answer("wallet_hotkey", "Hotkey name", DEFAULT_HOTKEY),
        }
    return _in_full(replace(wanted, **found))


def _in_full(profile: Profile) -> Profile:
    """With absolute paths, and the usual names where none were given."""
    if profile.key_file:
        return replace(profile, key_file=_absolute(profile.key_file))
    if not profile.wallet_name:
        return profile
    return replace(
        profile,
        wallet_path=_absolute(profile.wallet_path or DEFAULT_WALLETS),
        wallet_hotkey=profile.wallet_hotkey or DEFAULT_HOTKEY,
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _check_complete(wanted: Profile) -> None:
    options = {
        "--facilitator": wanted.facilitator,
        "--validator": wanted.validator,
        "--wallet-name (or --key-file)": wanted.wallet_name or wanted.key_file,
    }
    if missing := [name for name, value in options.items() if not value]:
        fail(
            f"not given: {', '.join(missing)}", "Give them, or run `horde login` on a terminal, where it asks.", 2
        )
    if not is_address(wanted.validator):
        fail(f"--validator {wanted.validator[:80]!r} is not the SS58 address of a hotkey", code=2)


def _key_text(profile: Profile) -> str:
    return f"key {key_source(profile).file}"


def _name(name: str | None) -> str:
    return _or_fail(lambda: check_name(name or DEFAULT_PROFILE))


def _profiles() -> dict[str, Profile]:
    return _or_fail(read_profiles)


def _write(known: dict[str, Profile]) -> Path:
    return _or_fail(lambda: write_profiles(known))


def _or_fail(action: Callable[[], T]) -> T:
    try:
        return action()
    except ProfileError as error:
        fail(str(error), MEND_HINT if "cannot read" in str(error) else "", 2)
