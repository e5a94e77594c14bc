"""Output uploads on the wire (section 4.3). Key order is part of the user's signature (section 3.4)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compute_horde.protocol.base import Message
from compute_horde.protocol.paths import safe_relative_path

OutputPath = Annotated[str, AfterValidator(safe_relative_path)]


class SingleFilePostUpload(Message):
    """Multipart POST of one file: the form fields, then the part ``file``."""

    output_upload_type: Literal["single_file_post"] = "single_file_post"
    url: str
    form_fields: dict[str, str] | None = None
    relative_path: OutputPath
    signed_headers: dict[str, str] | None = None


class SingleFilePutUpload(Message):
    """PUT of one file, streamed, with an explicit Content-Length."""

    output_upload_type: Literal["single_file_put"] = "single_file_put"
    url: str
    relative_path: OutputPath
    signed_headers: dict[str, str] | None = None


class ZipAndHttpPostUpload(Message):
    """The whole output folder as ``output.zip``, multipart POST."""

    output_upload_type: Literal["zip_and_http_post"] = "zip_and_http_post"
    url: str
    form_fields: dict[str, str] | None = None


class ZipAndHttpPutUpload(Message):
    """The whole output folder as ``output.zip``, PUT."""

    output_upload_type: Literal["zip_and_http_put"] = "zip_and_http_put"
    url: str


SingleFileUpload = Annotated[SingleFilePostUpload | SingleFilePutUpload, Field(discriminator="output_upload_type")]
ZipUpload = Annotated[ZipAndHttpPostUpload | ZipAndHttpPutUpload, Field(discriminator="output_upload_type")]


class MultiUpload(Message):
    """Named files one by one; ``system_output`` takes a zip of all the rest of the output folder."""

    output_upload_type: Literal["multi_upload"] = "multi_upload"
    uploads: list[SingleFileUpload]
    system_output: ZipUpload | None = None


OutputUpload = Annotated[
    SingleFilePostUpload | SingleFilePutUpload | ZipAndHttpPostUpload | ZipAndHttpPutUpload | MultiUpload,
    Field(discriminator="output_upload_type"),
]


class UploadResponse(Message):
    """What the upload target answered. Travels as a JSON *string* in ``upload_results``."""

    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
