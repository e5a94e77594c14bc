"""Input volumes on the wire (section 4.2). Key order is part of the user's signature (section 3.4)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compute_horde.protocol.base import Message
from compute_horde.protocol.paths import safe_input_path, safe_relative_path

InputPath = Annotated[str | None, AfterValidator(safe_input_path)]


class InlineVolume(Message):
    """``contents``: base64 of a zip, unpacked into the folder ``relative_path``."""

    volume_type: Literal["inline"] = "inline"
    contents: str
    relative_path: InputPath = None


class ZipUrlVolume(Message):
    """``contents``: the URL of a zip, unpacked into the folder ``relative_path``."""

    volume_type: Literal["zip_url"] = "zip_url"
    contents: str
    relative_path: InputPath = None


class SingleFileVolume(Message):
    """The body of ``url``, written to the file ``relative_path``."""

    volume_type: Literal["single_file"] = "single_file"
    url: str
    relative_path: Annotated[str, AfterValidator(safe_relative_path)]


class HuggingfaceVolume(Message):
    """A snapshot of a Hugging Face repository, placed under ``relative_path``."""

    volume_type: Literal["huggingface_volume"] = "huggingface_volume"
    repo_id: str
    repo_type: str | None = None
    revision: str | None = None
    relative_path: InputPath = None
    allow_patterns: str | list[str] | None = None
    token: str | None = None


SingleVolume = Annotated[
    InlineVolume | ZipUrlVolume | SingleFileVolume | HuggingfaceVolume, Field(discriminator="volume_type")
]


class MultiVolume(Message):
    """Several volumes, processed one after another in this order."""

    volume_type: Literal["multi_volume"] = "multi_volume"
    volumes: list[SingleVolume]


Volume = Annotated[
    InlineVolume | ZipUrlVolume | SingleFileVolume | HuggingfaceVolume | MultiVolume,
    Field(discriminator="volume_type"),
]
