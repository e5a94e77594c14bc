"""Volumes on S3: presigned URLs, so that executors need no credentials. With boto3, which is an optional extra."""

import importlib
from collections.abc import Mapping
from typing import Protocol

from compute_horde_sdk._internal.exceptions import (
    ComputeHordeError,
    ComputeHordeUnsupportedError,
    ComputeHordeValidationError,
)
from compute_horde_sdk._internal.specs.volumes import HTTPInputVolume, HTTPOutputVolume, check_text

DEFAULT_EXPIRES_S = 3600
MAX_EXPIRES_S = 7 * 24 * 3600


class S3Client(Protocol):
    """What is needed of boto3's S3 client."""

    def generate_presigned_url(
        self,
        ClientMethod: str,  # noqa: N803 - boto3's names
        Params: Mapping[str, str],  # noqa: N803
        ExpiresIn: int,  # noqa: N803
    ) -> str: ...


def s3_input_volume(
    bucket: str,
    key: str,
    *,
    expires_s: int = DEFAULT_EXPIRES_S,
    sha256: str | None = None,
    client: S3Client | None = None,
) -> HTTPInputVolume:
    """An object as an input: the file at the mount path.

    :param expires_s: how long the URL is good for, from now; long enough for the job to start. At most a week.
    :param sha256: of the object, in hex; see :class:`HTTPInputVolume`.
    :param client: boto3's S3 client; ``boto3.client("s3")`` when None.
    :raises ComputeHordeUnsupportedError: ``client`` is None and boto3 is not installed.
    :raises ComputeHordeError: boto3 cannot sign, for want of credentials for one.
    """
    return HTTPInputVolume(_presigned("get_object", bucket, key, expires_s, client), sha256)


def s3_output_volume(
    bucket: str, key: str, *, expires_s: int = DEFAULT_EXPIRES_S, client: S3Client | None = None
) -> HTTPOutputVolume:
    """An object that receives an output, with PUT.

    :param expires_s: how long the URL is good for, from now; it is used when the job ends. At most a week.
    :param client: boto3's S3 client; ``boto3.client("s3")`` when None.
    :raises ComputeHordeUnsupportedError: ``client`` is None and boto3 is not installed.
    :raises ComputeHordeError: boto3 cannot sign, for want of credentials for one.
    """
    return HTTPOutputVolume("PUT", _presigned("put_object", bucket, key, expires_s, client))


def _presigned(method: str, bucket: str, key: str, expires_s: int, client: S3Client | None) -> str:
    for field, value in (("bucket", bucket), ("key", key)):
        check_text(value, field)
    if type(expires_s) is not int or not 0 < expires_s <= MAX_EXPIRES_S:
        raise ComputeHordeValidationError(
            f"expires_s must be whole seconds, 1 to {MAX_EXPIRES_S}", field="expires_s"
        )
    try:
        return (client or _default_client()).generate_presigned_url(
            ClientMethod=method, Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_s
        )
    except ComputeHordeError:
        raise
    except Exception as error:  # boto3's errors have no base class of their own
        raise ComputeHordeError(
            f"the URL for s3://{bucket}/{key} could not be signed: {error}",
            code="presign_failed",
            hint="Check the AWS credentials and region of this machine.",
        ) from error


def _default_client() -> S3Client:
    try:
        boto3 = importlib.import_module("boto3")  # an optional extra
    except ImportError:
        raise ComputeHordeUnsupportedError(
            "S3 volumes need the package boto3", hint="pip install 'compute-horde[s3]'"
        ) from None
    made: S3Client = boto3.client("s3")
    return made
