"""What the facilitator's clock says, from the ``Date`` of its answers."""

import datetime as dt
from email.utils import parsedate_to_datetime

import httpx

from compute_horde_sdk._internal.wiring import Wiring

UNKNOWN_MARGIN = dt.timedelta(minutes=2)
FIRST_YEAR, LAST_YEAR = 1970, 9000


class ServerClock:
    """Runs on with the monotonic clock between two answers."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._heard: tuple[dt.datetime, float] | None = None

    def hear(self, response: httpx.Response) -> None:
        """Note the answer's ``Date``."""
        if moment := date_of(response):
            self._heard = (moment, self._wiring.clock())

    def not_before(self) -> dt.datetime:
        """A moment by the facilitator's clock that is past, though hardly: its ``Date`` leaves fractions out."""
        if self._heard is None:
            local = dt.datetime.fromtimestamp(self._wiring.now_ns() / 1e9, dt.UTC)
            return local - UNKNOWN_MARGIN
        moment, heard_at = self._heard
        return moment + dt.timedelta(seconds=self._wiring.clock() - heard_at)


def date_of(response: httpx.Response) -> dt.datetime | None:
    """The answer's ``Date``; None when there is none or it is unreadable."""
    try:
        return read_date(response.headers.get("Date", ""))
    except ValueError:
        return None


def read_date(text: str) -> dt.datetime:
    """An HTTP date.

    :raises ValueError: it is none, or a moment that nobody lives in, which no sum of times could hold.
    """
    try:
        moment = in_utc(parsedate_to_datetime(text))
    except (TypeError, OverflowError):
        raise ValueError(f"{text[:100]!r} is no date") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"{text[:100]!r} is no date of our time")
    return moment


def in_utc(moment: dt.datetime) -> dt.datetime:
    """A moment that does not name its zone is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
