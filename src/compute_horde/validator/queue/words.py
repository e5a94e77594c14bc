"""Times, counts and names as a person reads them."""

import datetime as dt

from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY


def duration(seconds: float) -> str:
    """Rounded to what a person wants to know: ``40 s``, ``5 min``, ``3 h``, ``4 days``."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(0, round(seconds))} s"


def since(at: float) -> str:
    """``since 2026-03-01 12:00:05 UTC``."""
    return f"since {dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def miner(hotkey: str) -> str:
    """Enough of a hotkey to find it again in the list of miners."""
    return "the trusted miner" if hotkey == TRUSTED_MINER_HOTKEY else f"miner {hotkey[:8]}"


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def sentence(text: str) -> str:
    """With a capital and a full stop; others' messages have neither."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""


def joined(*texts: str) -> str:
    """Sentences in a row, without the empty ones."""
    return " ".join(filter(None, texts))
