"""Input and output volumes as a caller writes them (PROTOCOL.md 4.2 and 4.3)."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compute_horde.protocol.paths import path_problem
from compute_horde_sdk._internal.address import check_http_url, shown_url
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.specs.packing import MAX_INLINE_BYTES, is_zip, read_path, too_large, zip_of

REPO_TYPES = ("model", "dataset", "space")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, repr=False)
class HTTPInputVolume:
    """One file, fetched from ``url`` by the executor. The mount path is the file's.

    * ``sha256``: of the file, in hex. Executors that can check it do, and the job fails with the code
      ``download_checksum`` when it differs; older ones take the file as it is

    :raises ComputeHordeValidationError: not an http(s) URL; ``sha256`` is none; both it and a ``#...`` in ``url``.
    """

    url: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_http_url(self.url, "url")
        if self.sha256 is None:
            return
        if not SHA256.fullmatch(str(self.sha256)):
            raise ComputeHordeValidationError("sha256 must be 64 hexadecimal digits", field="sha256")
        if "#" in self.url:
            raise ComputeHordeValidationError(
                "a url with a fragment cannot have a sha256", field="url", hint="Take off what follows the '#'."
            )

    def __repr__(self) -> str:
        checked = f", sha256={self.sha256!r}" if self.sha256 else ""
        return f"HTTPInputVolume(url={shown_url(self.url)!r}{checked})"


@dataclass(frozen=True)
class HuggingfaceInputVolume:
    """A snapshot of a Hugging Face repository. The mount path is the folder's.

    * ``repo_type``: ``model`` (when None), ``dataset`` or ``space``
    * ``revision``: a branch, tag or commit; the default branch when None
    * ``allow_patterns``: fetch only files that match one of these
    """

    repo_id: str
    repo_type: str | None = None
    revision: str | None = None
    allow_patterns: str | list[str] | None = None

    def __post_init__(self) -> None:
        check_text(self.repo_id, "repo_id")
        if self.repo_type is not None and self.repo_type not in REPO_TYPES:
            raise ComputeHordeValidationError(
                f"repo_type must be one of {', '.join(REPO_TYPES)}, or None", field="repo_type"
            )
        if self.revision is not None:
            check_text(self.revision, "revision")
        _check_patterns(self.allow_patterns)


@dataclass(frozen=True, repr=False)
class InlineInputVolume:
    """Data that travels inside the job; for less than 2 MB, or 20 MB where the facilitator is one of this version.

    * ``contents``: base64
    * ``unpack``: True unpacks a zip into the folder at the mount path; False makes the bytes the file at the mount
      path, whatever they are; None unpacks what is a zip

    :raises ComputeHordeValidationError: not base64, too large, or no zip and ``unpack`` is True.
    """

    contents: str
    unpack: bool | None = None

    def __post_init__(self) -> None:
        data = self.decoded()
        if len(data) > MAX_INLINE_BYTES:
            raise too_large("contents")
        if self.unpack and not is_zip(data):
            raise ComputeHordeValidationError("contents must be a zip when unpack is True", field="contents")

    @classmethod
    def from_file_contents(cls, filename: str, contents: bytes, compress: bool = False) -> "InlineInputVolume":
        """The one file ``filename`` below the mount path.

        :param compress: deflate it.
        :raises ComputeHordeValidationError: an unsafe file name, or too large.
        """
        check_text(filename, "filename")
        if why := path_problem(filename):
            raise ComputeHordeValidationError(f"filename {why}", field="filename")
        _check_bytes(contents, "contents")
        return cls._of(zip_of({filename: bytes(contents)}, compress=compress), unpack=None)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "InlineInputVolume":
        """The file at the mount path, with exactly these bytes.

        :raises ComputeHordeValidationError: too large.
        """
        _check_bytes(data, "data")
        return cls._of(bytes(data), unpack=False)

    @classmethod
    def from_text(cls, text: str, encoding: str = "utf-8") -> "InlineInputVolume":
        """The file at the mount path, with this text as it is.

        :raises ComputeHordeValidationError: too large, or not a text that ``encoding`` can hold.
        """
        if not isinstance(text, str):
            raise ComputeHordeValidationError("text must be a text", field="text")
        try:
            return cls._of(text.encode(encoding), unpack=False)
        except (UnicodeEncodeError, LookupError) as error:
            raise ComputeHordeValidationError(f"text cannot be encoded: {error}", field="text") from None

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> "InlineInputVolume":
        """A local file, which becomes the file at the mount path, or a folder, which becomes the folder there.

        A folder travels as a zip, which is the same for the same files. Read now.

        :raises ComputeHordeValidationError: not there, unreadable, too large; a link or another thing that is
            neither file nor folder inside.
        """
        local = Path(path)
        return cls._of(read_path(local), unpack=local.is_dir())

    def decoded(self) -> bytes:
        """The bytes behind ``contents``."""
        if not isinstance(self.contents, str):
            raise ComputeHordeValidationError("contents must be base64 text", field="contents")
        try:
            return base64.b64decode("".join(self.contents.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ComputeHordeValidationError(
                f"contents must be standard base64: {error}",
                field="contents",
                hint="InlineInputVolume.from_bytes() takes plain bytes.",
            ) from None

    def __repr__(self) -> str:
        how = "" if self.unpack is None else f", unpack={self.unpack}"
        return f"InlineInputVolume(<{len(self.contents) * 3 // 4} bytes>{how})"

    @classmethod
    def _of(cls, data: bytes, *, unpack: bool | None) -> "InlineInputVolume":
        if len(data) > MAX_INLINE_BYTES:
            raise too_large("contents")
        return cls(base64.b64encode(data).decode(), unpack)


InputVolume = HTTPInputVolume | HuggingfaceInputVolume | InlineInputVolume
"""What can be put at a mount path; a ``pathlib.Path`` of a local file or folder can, too."""


@dataclass(frozen=True, repr=False)
class HTTPOutputVolume:
    """One file, uploaded to ``url`` when the job ends.

    * ``http_method``: ``PUT`` streams the file; ``POST`` sends a multipart form with the part ``file``
    * ``form_fields``: of the form, sent before the file; POST only
    * ``signed_headers``: sent with the upload

    :raises ComputeHordeValidationError: another method, a URL that is none, ``form_fields`` with PUT.
    """

    http_method: Literal["POST", "PUT"]
    url: str
    form_fields: Mapping[str, str] | None = None
    signed_headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.http_method not in ("POST", "PUT"):
            raise ComputeHordeValidationError("http_method must be 'POST' or 'PUT'", field="http_method")
        check_http_url(self.url, "url")
        check_text_mapping(self.form_fields, "form_fields")
        check_text_mapping(self.signed_headers, "signed_headers")
        if self.http_method == "PUT" and self.form_fields is not None:
            raise ComputeHordeValidationError(
                "form_fields cannot be used with PUT", field="form_fields", hint="Use http_method='POST'."
            )

    def __repr__(self) -> str:
        more = "".join(
            f", {name}={sorted(given)}"
            for name, given in (("form_fields", self.form_fields), ("signed_headers", self.signed_headers))
            if given
        )
        return f"HTTPOutputVolume({self.http_method!r}, url={shown_url(self.url)!r}{more})"


OutputVolume = HTTPOutputVolume


def check_text_mapping(value: object, field: str) -> None:
    """None, or a mapping of text to text.

    :raises ComputeHordeValidationError: anything else.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ComputeHordeValidationError(f"{field} must be a mapping of text to text", field=field)
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise ComputeHordeValidationError(
                f"{field} must map text to text, which {key!r} does not", field=f"{field}[{key!r}]"
            )


def check_text(value: object, field: str) -> None:
    """:raises ComputeHordeValidationError: not a text, or a blank one."""
    if not isinstance(value, str) or not value.strip():
        raise ComputeHordeValidationError(f"{field} must be a text that is not blank", field=field)


def _check_bytes(value: object, field: str) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ComputeHordeValidationError(f"{field} must be bytes", field=field)


def _check_patterns(value: object) -> None:
    texts = value if isinstance(value, list | tuple) else [value or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ComputeHordeValidationError(
            "allow_patterns must be a text or a list of texts", field="allow_patterns"
        )
