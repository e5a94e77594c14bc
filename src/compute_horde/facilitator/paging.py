"""Query parameters of the job list, and the links between its pages (section 2.6). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from compute_horde.facilitator.errors import ApiError
from compute_horde.facilitator.jobs import is_uuid
from compute_horde.protocol.sdk_facilitator import MAX_PAGE_SIZE

DEFAULT_PAGE_SIZE = 10
MAX_PAGE = 2**31
INVALID_PAGE = {"detail": "Invalid page."}


@dataclass(frozen=True)
class PageQuery:
    """What was asked for.

    * ``before``: the job behind which to go on, empty for the newest; None: by page
    * ``pairs``: the query as it came, to be kept in the links
    """

    page: int
    page_size: int
    tag: str | None
    uuids: tuple[str, ...]
    pending: bool | None
    before: str | None
    pairs: tuple[tuple[str, str], ...]

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size

    @classmethod
    def parse(cls, pairs: Sequence[tuple[str, str]]) -> "PageQuery":
        """:raises ApiError: 404 for a page that is none, 400 for another bad parameter (G18)."""
        last = dict(pairs)
        uuids = tuple(value.lower() for name, value in pairs if name == "uuid")
        if any(not is_uuid(value) for value in uuids):
            raise ApiError(400, {"uuid": ["Must be a valid UUID."]})
        return cls(
            page=_page(last.get("page")),
            page_size=_size(last.get("page_size")),
            tag=last.get("tag"),
            uuids=uuids,
            pending=_pending(last.get("pending")),
            before=_before(last.get("before")),
            pairs=tuple(pairs),
        )

    def link(self, base: str, name: str, value: object) -> str:
        """The same query at another place: ``page`` or ``before``."""
        kept = [pair for pair in self.pairs if pair[0] not in ("page", "before")]
        return f"{base}?{urlencode([*kept, (name, str(value))])}"


def _page(text: str | None) -> int:
    number = whole_number("1" if text is None else text)
    if number is None or not 1 <= number <= MAX_PAGE:
        raise ApiError(404, INVALID_PAGE)
    return number


def _size(text: str | None) -> int:
    number = DEFAULT_PAGE_SIZE if text is None else whole_number(text)
    if number is None or number < 1:
        raise ApiError(400, {"page_size": ["A valid integer is required."]})
    return min(number, MAX_PAGE_SIZE)


def _pending(text: str | None) -> bool | None:
    if text not in (None, "true", "false"):
        raise ApiError(400, {"pending": ["Must be true or false."]})
    return None if text is None else text == "true"


def _before(text: str | None) -> str | None:
    if text and not is_uuid(text):
        raise ApiError(400, {"before": ["Must be a valid UUID."]})
    return None if text is None else text.lower()


def asked_position(asked: Mapping[str, str | None], most: int) -> int | None:
    """The first position that was given, by parameter name. :raises ApiError: 400: it is none."""
    for name, text in asked.items():
        if text:
            number = whole_number(text)
            if number is None or number > most:
                raise ApiError(400, {name: ["A valid integer is required."]})
            return number
    return None


def whole_number(text: str) -> int | None:
    """A non-negative integer in ASCII digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
