"""Volumes on the wire (PROTOCOL.md 4.2 and 4.3)."""

import base64

from compute_horde.protocol.uploads import SingleFilePostUpload, SingleFilePutUpload
from compute_horde.protocol.volumes import HuggingfaceVolume, InlineVolume, SingleFileVolume
from compute_horde_sdk._internal.exceptions import ComputeHordeValidationError
from compute_horde_sdk._internal.specs.packing import is_zip, zip_of
from compute_horde_sdk._internal.specs.volumes import (
    HTTPInputVolume,
    HTTPOutputVolume,
    HuggingfaceInputVolume,
    InlineInputVolume,
    InputVolume,
)


def input_to_wire(volume: InputVolume, path: str) -> InlineVolume | SingleFileVolume | HuggingfaceVolume:
    """The wire form of one input. ``path``: below ``/volume/``, already checked; empty is the root.

    :raises ComputeHordeValidationError: a single file without a file name.
    """
    folder = path.removesuffix("/") or None
    match volume:
        case HuggingfaceInputVolume():
            return HuggingfaceVolume(
                repo_id=volume.repo_id,
                repo_type=volume.repo_type,
                revision=volume.revision,
                relative_path=folder,
                allow_patterns=_patterns(volume.allow_patterns),
            )
        case HTTPInputVolume():
            return SingleFileVolume(url=_checked_url(volume), relative_path=_file_path(path))
        case InlineInputVolume():
            return _inline_to_wire(volume, path, folder)


def output_to_wire(volume: HTTPOutputVolume, path: str) -> SingleFilePostUpload | SingleFilePutUpload:
    """The wire form of one output. ``path``: below ``/output/``, already checked."""
    headers = None if volume.signed_headers is None else dict(volume.signed_headers)
    if volume.http_method == "PUT":
        return SingleFilePutUpload(url=volume.url, relative_path=path, signed_headers=headers)
    form = None if volume.form_fields is None else dict(volume.form_fields)
    return SingleFilePostUpload(url=volume.url, form_fields=form, relative_path=path, signed_headers=headers)


def _checked_url(volume: HTTPInputVolume) -> str:
    """The checksum travels as the fragment, which no server is sent and older executors ignore."""
    return volume.url if volume.sha256 is None else f"{volume.url}#sha256={volume.sha256.lower()}"


def _inline_to_wire(volume: InlineInputVolume, path: str, folder: str | None) -> InlineVolume:
    data = volume.decoded()
    if volume.unpack is False or not is_zip(data):
        parent, _, name = _file_path(path).rpartition("/")
        data, folder = zip_of({name: data}, compress=False), parent or None
    return InlineVolume(contents=base64.b64encode(data).decode(), relative_path=folder)


def _file_path(path: str) -> str:
    if not path or path.endswith("/"):
        raise ComputeHordeValidationError(
            "the mount path of a single file must end with the file's name", field="input_volumes"
        )
    return path


def _patterns(value: str | list[str] | None) -> str | list[str] | None:
    return value if value is None or isinstance(value, str) else list(value)
