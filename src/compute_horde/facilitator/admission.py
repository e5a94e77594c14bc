"""Whether a posted job can be taken, and the message it becomes (sections 2.5 and 3). Pure: no I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from compute_horde.facilitator.errors import ApiError, invalid_fields, signature_invalid, signature_missing
from compute_horde.lifecycle.deadlines import Limits
from compute_horde.protocol.facilitator_validator import StreamingClientDetails, V2JobRequest
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.protocol.signing import (
    HEADER_SIGNATORY,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    HEADER_TYPE,
    InvalidSignature,
    Signature,
    SignatureScope,
    SignedFields,
    Verifier,
    canonical_text,
    check_age,
    verify_payload,
)
from compute_horde.protocol.uploads import MultiUpload
from compute_horde.protocol.volumes import MultiVolume
from compute_horde.telemetry.vocabulary import Refusal

_MANDATORY = (HEADER_TYPE, HEADER_SIGNATORY, HEADER_TIMESTAMP, HEADER_SIGNATURE)
_ORDERS = (
    "volume_type,contents,relative_path (inline, zip_url); volume_type,url,relative_path (single_file); "
    "volume_type,repo_id,repo_type,revision,relative_path,allow_patterns,token (huggingface_volume); "
    "output_upload_type,url,form_fields,relative_path,signed_headers (single_file_post); "
    "output_upload_type,url,relative_path,signed_headers (single_file_put)"
)


@dataclass(frozen=True)
class SignatureRules:
    """Who may have signed, when, and how that is checked. ``user``: the hotkey that is logged in."""

    user: str
    now: float
    max_age_s: float
    verifier: Verifier

    def of_any_age(self) -> "SignatureRules":
        """The same for a request that was accepted before."""
        return replace(self, max_age_s=math.inf)

    def check(self, signature: Signature, payload: str) -> None:
        """:raises ApiError: 400, the details say why."""
        if signature.signatory != self.user:
            raise signature_invalid("the signatory is not the hotkey that is logged in")
        try:
            check_age(signature, int(self.now * 1e9), self.max_age_s)
        except InvalidSignature as error:
            raise signature_invalid(error, Refusal.STALE) from None
        if not verify_payload(signature, payload, self.verifier):
            raise signature_invalid("the signature does not belong to this body and signatory")


def read_signature(headers: Mapping[str, str], scope: SignatureScope) -> Signature:
    """The request's signature. :raises ApiError: 400, missing or malformed: never a 500 (G4)."""
    missing = [name for name in _MANDATORY if not headers.get(name)]
    if len(missing) == len(_MANDATORY):
        raise signature_missing("Request signature not found, but is required")
    if missing:
        raise signature_missing(f"{', '.join(missing)} header is missing")
    try:
        signature = Signature.from_headers(headers)
    except InvalidSignature as error:
        raise signature_invalid(error) from None
    if signature.signature_scope is not scope:
        raise signature_invalid(f"the signature scope must be {scope.value}")
    return signature


def admit_job(body: Mapping[str, Any], signature: Signature, rules: SignatureRules) -> JobRequest:
    """The request, with fields and signature checked. Nothing is trimmed: the text is signed (G7).

    :raises ApiError: 400.
    """
    try:
        request = JobRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_fields(error) from None
    if request.cross_validates and not request.on_trusted_miner:
        raise ApiError(400, {"cross_validates": ["Only a job on the trusted miner repeats another."]})
    rules.check(signature, _signed_text(body))
    return request


def job_message(uuid: str, request: JobRequest, signature: Signature, body: Mapping[str, Any]) -> V2JobRequest:
    """What the validator is sent; the wishes about scheduling only where there are any.

    :raises ApiError: 400 where it would not find the user's signature valid (section 3.4).
    """
    streaming = request.streaming_details
    message = V2JobRequest(
        signature=signature,
        uuid=uuid,
        job_namespace=request.job_namespace,
        executor_class=request.executor_class,
        docker_image=request.docker_image,
        args=request.args,
        env=request.env,
        use_gpu=request.use_gpu,
        volume=MultiVolume(volumes=request.volumes) if request.volumes else None,
        output_upload=MultiUpload(uploads=request.uploads) if request.uploads else None,
        artifacts_dir=request.artifacts_dir or None,
        on_trusted_miner=request.on_trusted_miner,
        download_time_limit=request.download_time_limit,
        execution_time_limit=request.execution_time_limit,
        upload_time_limit=request.upload_time_limit,
        streaming_start_time_limit=request.streaming_start_time_limit,
        streaming_details=StreamingClientDetails(public_key=streaming.public_key) if streaming else None,
        scheduling=None if request.scheduling.is_default else request.scheduling,
    )
    _check_rebuilt(SignedFields.from_body(body), message.signed_fields())
    return message


def admit_report(body: Mapping[str, Any], signature: Signature, rules: SignatureRules) -> None:
    """Check a ``FullRequest`` signature over the whole body. :raises ApiError: 400."""
    try:
        text = canonical_text(dict(body))
    except (ValueError, RecursionError):
        raise signature_invalid("the body cannot be signed: it holds values that JSON text cannot carry") from None
    rules.check(signature, text)


def time_budget(request: JobRequest, margin_s: float) -> float:
    """Seconds within which a job must end, whatever happens (G10)."""
    limits = Limits(
        download=request.download_time_limit,
        execution=request.execution_time_limit,
        upload=request.upload_time_limit,
        streaming_start=request.streaming_start_time_limit if request.streaming_details else 0,
    )
    return limits.overall(request.executor_class) + margin_s


def _signed_text(body: Mapping[str, Any]) -> str:
    try:
        return SignedFields.from_body(body).payload()
    except (ValueError, RecursionError):
        raise signature_invalid("the body cannot be signed: it holds values that JSON text cannot carry") from None


def _check_rebuilt(signed: SignedFields, rebuilt: SignedFields) -> None:
    if signed.payload() == rebuilt.payload():
        return
    for name in SignedFields.model_fields:
        if repr(getattr(signed, name)) != repr(getattr(rebuilt, name)):  # unlike ==, sees the order of keys
            raise ApiError(400, {name: [_why(name)]})
    raise ApiError(400, {"non_field_errors": ["The validator would not find this request's signature valid."]})


def _why(name: str) -> str:
    if name in ("volumes", "uploads"):
        return (
            f"The validator would not find the signature valid: each of the {name} must have exactly the keys of "
            f"its kind, nulls included, in this order: {_ORDERS}."
        )
    return f"The validator would not find the signature valid: send and sign {name} exactly as it is meant."
