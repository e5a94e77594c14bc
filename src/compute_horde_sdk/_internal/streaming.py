"""The key pair of one streaming job (PROTOCOL.md 4.6): the job's server lets in whoever has its private key."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compute_horde.protocol.enums import Fault, Stage
from compute_horde_sdk._internal.exceptions import ComputeHordeJobError, ComputeHordeUnsupportedError
from compute_horde_sdk._internal.models import ComputeHordeJobStatus, ComputeHordeJobStatusEntry
from compute_horde_sdk._internal.port import StreamingServer

if TYPE_CHECKING:  # an optional extra
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

VALID_DAYS = 365
CLOCK_LEEWAY = dt.timedelta(minutes=5)
"""The certificate is valid from this long ago, since an executor's clock may be behind."""


@dataclass(frozen=True, repr=False)
class StreamingKeys:
    """``certificate``: self-signed, of ``private_key``. ``pem``: the certificate, as it is sent."""

    certificate: "Certificate"
    private_key: "RSAPrivateKey"
    pem: str


def make_streaming_keys() -> StreamingKeys:
    """A new pair; takes about 0.1 s of a processor.

    :raises ComputeHordeUnsupportedError: ``cryptography`` is not installed.
    """
    import ipaddress  # noqa: PLC0415 - with the rest, since importing the library is to be quick

    try:
        # here, since it is an optional extra
        from cryptography import x509  # noqa: PLC0415 - see above
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - see above
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - see above
        from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - see above
    except ImportError:
        raise ComputeHordeUnsupportedError(
            "streaming jobs need the package cryptography", hint="pip install 'compute-horde[streaming]'"
        ) from None
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    )
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_LEEWAY)
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(key, SHA256())
    )
    return StreamingKeys(certificate, key, certificate.public_bytes(Encoding.PEM).decode())


def server_of(history: Sequence[ComputeHordeJobStatusEntry]) -> StreamingServer | None:
    """Where the job listens, as its history tells; None when it does not."""
    for entry in reversed(history):
        if details := entry.metadata and entry.metadata.streaming_details:
            return StreamingServer(
                details.streaming_server_cert or "",
                details.streaming_server_address or "",
                details.streaming_server_port or 0,
            )
    return None


def not_reached(job_uuid: str, status: ComputeHordeJobStatus) -> ComputeHordeJobError:
    """For a job whose server is gone, or never was, although nothing failed."""
    return ComputeHordeJobError(
        f"job {job_uuid} is {status.value}: it cannot be streamed from any more",
        code="streaming_over",
        stage=Stage.STREAMING_STARTUP,
        fault=Fault.USER,
        hint="Call wait_for_streaming() while the job runs, on a job that was created with streaming=True.",
    )
