"""The bus topics of this service."""

from compute_horde.storage.bus import Bus


def user_topic(hotkey: str) -> str:
    """Wakes whoever follows all of this user's jobs."""
    return f"jobs:{hotkey}"


def job_topic(uuid: str) -> str:
    """Wakes whoever follows this one job."""
    return f"job:{uuid}"


def places_topic(hotkey: str) -> str:
    """Wakes whoever is shown the places of this user's waiting jobs."""
    return f"places:{hotkey}"


def validator_topic(hotkey: str) -> str:
    """Wakes every replica that has a connection of this validator: there is something to tell it."""
    return f"validator:{hotkey}"


def announce(bus: Bus, user: str, uuid: str) -> None:
    """Tell of a new status of this user's job."""
    bus.notify(user_topic(user))
    bus.notify(job_topic(uuid))
