"""Arrays in NumPy's ``.npy`` format, read without NumPy: plain integers, floats and booleans of any shape."""

import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
_KINDS = {
    **{f"f{size}": code for size, code in ((2, "e"), (4, "f"), (8, "d"))},
    **{f"i{size}": code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))},
    **{f"u{size}": code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))},
    "b1": "B",
}
_HEADER = (
    r"\{'descr': '(?P<order>[<>|=])(?P<kind>[fiub]\d{1,2})', 'fortran_order': (?:True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}, ?){0,63}(?:\d{1,18})?)\),? *\} *\n?"
)


class NotAnArray(ValueError):  # noqa: N818 - says what was found, not what failed
    """The bytes are no array that can be read here."""


class Array(NamedTuple):
    """``header``: kind, order and shape as written. ``unpacking``: of one number, as in ``struct``."""

    header: str
    unpacking: str
    data: bytes

    def values(self) -> Iterator[float]:
        """The numbers, in the order of the file."""
        return (value for (value,) in struct.iter_unpack(self.unpacking, self.data))


def read_array(content: bytes) -> Array:
    """:raises NotAnArray: not this format, of another kind, or of the wrong length."""
    if not content.startswith(MAGIC) or len(content) < 12:
        raise NotAnArray
    wide = content[6] > 1
    start = 12 if wide else 10
    (length,) = struct.unpack_from("<I" if wide else "<H", content, 8)
    header = content[start : start + length].decode("latin-1") if length <= MAX_HEADER_BYTES else ""
    found = re.fullmatch(_HEADER, header, re.ASCII)
    if found is None or (code := _KINDS.get(found["kind"])) is None:
        raise NotAnArray
    unpacking = ("<" if found["order"] != ">" else ">") + code
    data = content[start + length :]
    shape = [int(part) for part in found["shape"].split(",") if part.strip()]
    if math.prod(shape) * struct.calcsize(unpacking) != len(data):
        raise NotAnArray
    return Array(header.strip(), unpacking, data)
