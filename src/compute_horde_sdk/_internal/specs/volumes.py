"""Input and output volumes as a caller writes them (PROTOCOL.md 4.2 and 4.3)."""

import base64
import binascii
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compute_horde.protocol.paths import path_problem
from compute_horde_sdk._internal.address import check_http_url
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError

REPO_TYPES = ("model", "dataset", "space")
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class HTTPInputVolume:
    """One file, fetched from ``url`` by the executor. The mount path is the file's.

    :raises ComputeHordeValidationError: not an http(s) URL.
    """

    url: str

    def __post_init__(self) -> None:
        check_http_url(self.url, "url")


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
        _check_text(self.repo_id, "repo_id")
        if self.repo_type is not None and self.repo_type not in REPO_TYPES:
            raise ComputeHordeValidationError(
                f"repo_type must be one of {', '.join(REPO_TYPES)}, or None", field="repo_type"
            )
        if self.revision is not None:
            _check_text(self.revision, "revision")
        _check_patterns(self.allow_patterns)


@dataclass(frozen=True)
class InlineInputVolume:
    """Data that travels inside the job. ``contents``: base64.

    Base64 of a zip is unpacked into the folder at the mount path. Base64 of anything else becomes the file at the
    mount path.

    :raises ComputeHordeValidationError: not base64.
    """

    contents: str

    def __post_init__(self) -> None:
        self.decoded()

    @classmethod
    def from_file_contents(cls, filename: str, contents: bytes, compress: bool = False) -> "InlineInputVolume":
        """A zip with the one file ``filename``, which appears below the mount path.

        :raises ComputeHordeValidationError: an unsafe file name.
        """
        _check_text(filename, "filename")
        if why := path_problem(filename):
            raise ComputeHordeValidationError(f"filename {why}", field="filename")
        _check_bytes(contents, "contents")
        return cls(base64.b64encode(zip_of(filename, bytes(contents), compress=compress)).decode())

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
                hint="InlineInputVolume.from_file_contents() takes plain bytes.",
            ) from None


InputVolume = HTTPInputVolume | HuggingfaceInputVolume | InlineInputVolume


@dataclass(frozen=True)
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


def is_zip(data: bytes) -> bool:
    return data.startswith(ZIP_MAGIC) and zipfile.is_zipfile(io.BytesIO(data))


def zip_of(filename: str, contents: bytes, *, compress: bool) -> bytes:
    """A one-entry zip; the same bytes for the same input, whenever it is made."""
    entry = zipfile.ZipInfo(filename)
    entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, contents)
    return target.getvalue()


def _check_text(value: object, field: str) -> None:
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
