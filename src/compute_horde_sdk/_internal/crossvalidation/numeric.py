"""Files with numbers in them, compared within a tolerance."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from compute_horde_sdk._internal.crossvalidation.comparing import unequal_bytes
from compute_horde_sdk._internal.crossvalidation.npy import NotAnArray, read_array
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError

SHOWN_CHARS = 100

_BETWEEN = r"\s,;:=|<>%()\[\]{}\"'"
_WORD = rf"[^{_BETWEEN}]++|(?:(?!\s)[{_BETWEEN}])"
_NUMBER = r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:e[-+]?\d++)?"
_NAMED = r"[-+]?(?:nan|inf|infinity)"
_ANY_CASE = re.ASCII | re.IGNORECASE  # the patterns are compiled at their first use, which most programs never see


@dataclass(frozen=True)
class Tolerance:
    """``|own - trusted| <= atol + rtol * |trusted|``: the trusted side is the measure."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        for field, value in (("rtol", self.rtol), ("atol", self.atol)):
            wrong = isinstance(value, bool) or not isinstance(value, int | float)
            if wrong or not math.isfinite(value) or value < 0:
                raise ComputeHordeValidationError(f"{field} must be a finite number, 0 or more", field=field)

    def unequal(self, own: bytes, trusted: bytes) -> tuple[str, str] | None:
        """What differs, in short; None when the two contents agree. Unreadable ones agree to the byte or not."""
        if own == trusted:
            return None
        try:
            return self._unequal_arrays(own, trusted)
        except NotAnArray:
            pass
        try:
            texts = own.decode(), trusted.decode()
        except UnicodeDecodeError:
            return unequal_bytes(own, trusted)
        return unequal_bytes(own, trusted) if any("\0" in text for text in texts) else self._unequal_texts(*texts)

    def close(self, own: float, trusted: float) -> bool:
        """Whether two numbers agree."""
        if own == trusted or (math.isnan(own) and math.isnan(trusted)):
            return True
        if not math.isfinite(own) or not math.isfinite(trusted):
            return False
        return abs(own - trusted) <= self.atol + self.rtol * abs(trusted)

    def _unequal_texts(self, own: str, trusted: str) -> tuple[str, str] | None:
        for mine, theirs in zip_longest(_words(own), _words(trusted)):
            if mine != theirs and not (mine and theirs and self._close_words(mine, theirs)):
                return _shown(mine), _shown(theirs)
        return None

    def _close_words(self, own: str, trusted: str) -> bool:
        numbers = _number(own), _number(trusted)
        return numbers[0] is not None and numbers[1] is not None and self.close(numbers[0], numbers[1])

    def _unequal_arrays(self, own: bytes, trusted: bytes) -> tuple[str, str] | None:
        mine, theirs = read_array(own), read_array(trusted)
        if mine.header != theirs.header:
            return mine.header[:SHOWN_CHARS], theirs.header[:SHOWN_CHARS]
        for index, (one, other) in enumerate(zip(mine.values(), theirs.values(), strict=True)):
            if not self.close(one, other):
                return f"[{index}] = {one!r}", f"[{index}] = {other!r}"
        return None


def _words(text: str) -> Iterator[str]:
    """Words and marks, without the blanks between them."""
    return (found.group() for found in re.finditer(_WORD, text))


def _number(word: str) -> float | None:
    """The number that a word is; None for any other word, and for a number too large for a float."""
    if re.fullmatch(_NAMED, word, _ANY_CASE):
        return float(word)
    if not re.fullmatch(_NUMBER, word, _ANY_CASE):
        return None
    value = float(word)
    return value if math.isfinite(value) else None


def _shown(word: str | None) -> str:
    return "the end" if word is None else word[:SHOWN_CHARS]
