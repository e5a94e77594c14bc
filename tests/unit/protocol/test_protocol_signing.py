"""Signed bytes: the worked examples of PROTOCOL 3.5, 6.2, 6.3 and 9.2, made with the network's own software."""

import base64
import datetime as dt
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from compute_horde.chain.keys import throwaway_hotkey, verify
from compute_horde.protocol import receipts as rc
from compute_horde.protocol import validator_miner as vm
from compute_horde.protocol.base import MalformedFrame
from compute_horde.protocol.enums import DockerPreset, ExecutorClass
from compute_horde.protocol.facilitator_validator import V0JobCheated, V2JobRequest
from compute_horde.protocol.miner_executor import executor_token
from compute_horde.protocol.signing import (
    InvalidSignature,
    Signature,
    SignatureScope,
    SignedFields,
    canonical_text,
    check_age,
    digest,
    hex_signature,
    sign_payload,
    verify_hex,
    verify_payload,
)

ALICE, BOB = throwaway_hotkey("//Alice"), throwaway_hotkey("//Bob")
JOB = "11111111-1111-4111-8111-111111111111"
TRUSTED = "22222222-2222-4222-8222-222222222222"
MOMENT_NS = 1735689600000000000
BODY: dict[str, Any] = {
    "target_validator_hotkey": ALICE.ss58_address,
    "executor_class": "always_on.llm.a6000",
    "docker_image": "alpine:3.19",
    "job_namespace": "SN123.0",
    "args": ["sh", "-c", 'echo "héllo"'],
    "env": {"B": "2", "A": "1"},
    "use_gpu": True,
    "artifacts_dir": "/artifacts",
    "on_trusted_miner": False,
    "download_time_limit": 5,
    "execution_time_limit": 10,
    "streaming_start_time_limit": 5,
    "upload_time_limit": 7,
    "volumes": [
        {"volume_type": "single_file", "url": "https://example.com/data.json", "relative_path": "data.json"}
    ],
    "uploads": [
        {
            "output_upload_type": "single_file_put",
            "url": "https://example.com/out?sig=1",
            "relative_path": "out.txt",
            "signed_headers": None,
        }
    ],
}
JOB_DIGEST = (
    "d82d8e809aca88508a43fb0d6ff136f57690540f7b0c21f74ff1180eb07660b2"
    "c90fff0f3b8ad0c4b803d4dbf3d693f4813b50d487c127455b324a3a98f3ee52"
)
CHEAT: dict[str, JsonValue] = {"job_uuid": JOB, "trusted_job_uuid": TRUSTED, "details": None}
CHEAT_TEXT_DIGEST = (
    "2b8a7384f06d6c4cd41c91e61693d8001671bc02a32134bd77d4ff3c55e6a243"
    "f36bc9f7213393a8eb20d87e13f85c0399a951c25aab5cfe3f0e4cc6cb62e38a"
)
CHEAT_OBJECT_DIGEST = (
    "821015c7ecbc35edd5fd50c9759362ba1906a8eb924281fbddc3f324bd87fc97"
    "bdc395e711258a1b48d0039562df17ea2b84831be002e982ae2039462bd20acd"
)


def signature(**changes: Any) -> Signature:
    return sign_payload(ALICE, "payload", SignatureScope.SIGNED_FIELDS, MOMENT_NS).model_copy(update=changes)


def as_pushed(body: dict[str, Any], **changes: Any) -> V2JobRequest:
    rest = {k: v for k, v in body.items() if k not in ("target_validator_hotkey", "volumes", "uploads")}
    whole = {"volume": body["volumes"][0], "output_upload": body["uploads"][0]}
    return V2JobRequest.model_validate({"signature": signature(), "uuid": JOB} | rest | whole | changes)


def test_a_body_is_signed_as_in_the_worked_example() -> None:
    payload = SignedFields.from_body(BODY).payload()
    assert (len(payload), len(payload.encode())) == (573, 574)
    assert len(canonical_text(payload)) == 658
    assert digest(MOMENT_NS, payload).hex() == JOB_DIGEST


def test_the_validator_rebuilds_the_same_fields_from_the_frame() -> None:
    assert digest(MOMENT_NS, as_pushed(BODY).signed_fields().payload()).hex() == JOB_DIGEST


def test_several_volumes_and_none_at_all_are_rebuilt() -> None:
    volumes, uploads = BODY["volumes"] * 2, BODY["uploads"] * 2
    many = as_pushed(
        BODY,
        volume={"volume_type": "multi_volume", "volumes": volumes},
        output_upload={"output_upload_type": "multi_upload", "uploads": uploads},
        streaming_details={"public_key": "PEM"},
    ).signed_fields()
    expected = SignedFields.from_body(
        BODY | {"volumes": volumes, "uploads": uploads, "streaming_details": {"public_key": "PEM"}}
    )
    assert many.payload() == expected.payload()
    none = as_pushed(BODY, volume=None, output_upload=None).signed_fields()
    assert (none.volumes, none.uploads) == ([], [])


def test_defaults_of_a_body() -> None:
    fields = SignedFields.from_body({})
    assert fields.executor_class == "None"
    assert (fields.docker_image, fields.artifacts_dir, fields.use_gpu, fields.upload_time_limit) == (
        "",
        "",
        False,
        0,
    )
    assert fields.streaming_details is None


def test_a_cheat_report_has_two_digests() -> None:
    assert digest(MOMENT_NS, canonical_text(CHEAT)).hex() == CHEAT_TEXT_DIGEST
    assert digest(MOMENT_NS, CHEAT).hex() == CHEAT_OBJECT_DIGEST
    assert V0JobCheated(signature=signature(), job_uuid=JOB, trusted_job_uuid=TRUSTED).signed_payload() == CHEAT


def test_a_signature_holds_for_its_payload_and_signatory_only() -> None:
    made = signature()
    assert verify_payload(made, "payload", verify)
    assert not verify_payload(made, "other", verify)
    assert not verify_payload(made.model_copy(update={"signatory": BOB.ss58_address}), "payload", verify)
    assert not verify_payload(made.model_copy(update={"signatory": "nobody"}), "payload", verify)


def test_headers_carry_a_signature_both_ways() -> None:
    made = signature()
    headers = made.to_headers()
    assert Signature.from_headers({name.upper(): value for name, value in headers.items()}) == made
    del headers["X-CH-Signature-Scope"]
    assert Signature.from_headers(headers).signature_scope is SignatureScope.SIGNED_FIELDS


@pytest.mark.parametrize("name", ["X-CH-Signature-Type", "X-CH-Signatory", "X-CH-Timestamp-NS", "X-CH-Signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signature().to_headers()
    del headers[name]
    with pytest.raises(InvalidSignature, match=f"{name} header is missing"):
        Signature.from_headers(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-CH-Timestamp-NS", "soon"),
        ("X-CH-Timestamp-NS", "-1"),
        ("X-CH-Signature", "not base64!"),
        ("X-CH-Signature-Scope", "Everything"),
    ],
)
def test_a_malformed_header_is_an_invalid_signature(name: str, value: str) -> None:
    with pytest.raises(InvalidSignature, match="malformed"):
        Signature.from_headers(signature().to_headers() | {name: value})


def test_age_is_limited_both_ways() -> None:
    made = signature()
    check_age(made, MOMENT_NS + 299 * 10**9, 300)
    check_age(made, MOMENT_NS - 59 * 10**9, 300)
    with pytest.raises(InvalidSignature, match="301 s old"):
        check_age(made, MOMENT_NS + 301 * 10**9, 300)
    with pytest.raises(InvalidSignature, match="in the future"):
        check_age(made, MOMENT_NS - 61 * 10**9, 300)


class HexKey:
    """A key whose library answers in hex."""

    ss58_address = ALICE.ss58_address

    def sign(self, data: bytes, /) -> str:
        return "0x" + bytes(ALICE.sign(data)).hex()


def test_hex_signatures_and_keys_that_answer_in_hex() -> None:
    for key in (ALICE, HexKey()):
        made = hex_signature(key, b"data")
        assert made.startswith("0x")
        assert verify_hex(verify, ALICE.ss58_address, b"data", made)
    assert not verify_hex(verify, ALICE.ss58_address, b"data", "0xzz")
    assert len(base64.b64decode(sign_payload(HexKey(), "x", SignatureScope.FULL_REQUEST, 1).signature)) == 64


def test_the_authentication_of_a_validator_signs_its_text() -> None:
    assert vm.ValidatorAuthForMiner.signed_bytes("v", "m", 1735689600) == b"v:m:1735689600"
    auth = vm.ValidatorAuthForMiner.make(ALICE, BOB.ss58_address, 1735689600)
    assert auth.is_signed(verify)
    assert not auth.model_copy(update={"timestamp": 1}).is_signed(verify)


def test_a_whole_request_is_signed_as_in_the_worked_example() -> None:
    request = vm.V0JobRequest(
        job_uuid=JOB,
        executor_class=ExecutorClass.always_on__test,
        docker_image="alpine",
        docker_run_options_preset=DockerPreset.NONE,
        docker_run_cmd=["echo", "hé"],
        env={"B": "2", "A": "1"},
        artifacts_dir="/artifacts",
    )
    assert vm.whole_message_bytes(request.model_dump(mode="json")).decode() == (
        '{"artifacts_dir":"/artifacts","docker_image":"alpine","docker_run_cmd":["echo","h\\u00e9"],'
        '"docker_run_options_preset":"none","env":{"A":"1","B":"2"},"executor_class":"always_on.test",'
        f'"job_uuid":"{JOB}","message_type":"V0JobRequest","output_upload":null,"raw_script":null,"volume":null}}'
    )
    signed = vm.signed_request(request, ALICE)
    assert vm.frame_is_signed(signed.to_frame(), ALICE.ss58_address, verify) is True
    assert vm.frame_is_signed(signed.to_frame(), BOB.ss58_address, verify) is False
    assert vm.frame_is_signed(signed.to_frame()[:-1] + ',"extra":1}', ALICE.ss58_address, verify) is False
    assert vm.frame_is_signed('{"validator_signature": 7}', ALICE.ss58_address, verify) is False
    assert vm.frame_is_signed(request.to_frame(), ALICE.ss58_address, verify) is None


COMMON: dict[str, Any] = {
    "job_uuid": JOB,
    "miner_hotkey": "m",
    "validator_hotkey": "v",
    "timestamp": "2025-01-01T00:00:00.123456Z",
}


def test_receipts_are_signed_as_in_the_worked_examples() -> None:
    started = rc.JobStartedPayload(**COMMON, executor_class=ExecutorClass.always_on__llm__a6000, ttl=7)
    accepted = rc.JobAcceptedPayload(**COMMON, time_accepted=dt.datetime(2025, 1, 1, tzinfo=dt.UTC), ttl=57)
    finished = rc.JobFinishedPayload(
        **COMMON,
        time_started=COMMON["timestamp"],
        time_took_us=1500000,
        score_str="22.000000",
        block_numbers=[5000000, 5000001],
    )
    assert started.signed_bytes().decode() == (
        '{"executor_class": "always_on.llm.a6000", "is_organic": true, "job_uuid": '
        f'"{JOB}", "miner_hotkey": "m", "receipt_type": "JobStartedReceipt", '
        '"timestamp": "2025-01-01T00:00:00.123456Z", "ttl": 7, "validator_hotkey": "v"}'
    )
    assert accepted.signed_bytes().decode() == (
        f'{{"job_uuid": "{JOB}", "miner_hotkey": "m", "receipt_type": "JobAcceptedReceipt", '
        '"time_accepted": "2025-01-01T00:00:00Z", "timestamp": "2025-01-01T00:00:00.123456Z", '
        '"ttl": 57, "validator_hotkey": "v"}'
    )
    assert finished.signed_bytes().decode() == (
        f'{{"block_numbers": [5000000, 5000001], "job_uuid": "{JOB}", "miner_hotkey": "m", "receipt_type": '
        '"JobFinishedReceipt", "score_str": "22.000000", "time_started": "2025-01-01T00:00:00.123456Z", '
        '"time_took_us": 1500000, "timestamp": "2025-01-01T00:00:00.123456Z", "validator_hotkey": "v"}'
    )


def test_a_foreign_offset_is_kept_in_the_signed_bytes() -> None:
    values = COMMON | {"timestamp": "2025-01-01T02:00:00+02:00"}
    payload = rc.JobStartedPayload(**values, executor_class=ExecutorClass.always_on__test, ttl=0)
    assert b'"timestamp": "2025-01-01T02:00:00+02:00"' in payload.signed_bytes()


def test_a_receipt_line_goes_both_ways_and_needs_both_signatures() -> None:
    values = COMMON | {"miner_hotkey": BOB.ss58_address, "validator_hotkey": ALICE.ss58_address}
    payload = rc.JobStartedPayload(**values, executor_class=ExecutorClass.always_on__test, ttl=7)
    good = rc.Receipt(payload=payload, validator_signature=payload.sign(ALICE), miner_signature=payload.sign(BOB))
    line = rc.page_line(good)
    assert line.endswith("\n")
    assert rc.parse_line(line) == good
    assert good.is_signed_by_both(verify)
    assert not good.model_copy(update={"miner_signature": good.validator_signature}).is_signed_by_both(verify)
    assert not good.model_copy(update={"validator_signature": "0x"}).is_signed_by_both(verify)
    with pytest.raises(MalformedFrame):
        rc.parse_line("{}")
    assert [rc.page_at(moment) for moment in (0, 299.9, 300)] == [0, 0, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"job_uuid": JOB.replace("1", "A")},
        {"timestamp": "1999-12-31T23:59:59Z"},
        {"timestamp": "2100-01-01T00:00:00Z"},
        {"timestamp": "2025-01-01T00:00:00"},
        {"time_took_us": -1},
        {"time_took_us": 31_536_000_000_001},
        {"score_str": "-1.0"},
        {"score_str": "1e3"},
        {"score_str": "1" * 257},
        {"block_numbers": [-1]},
        {"block_numbers": [0] * 10_001},
    ],
)
def test_a_receipt_outside_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    values = COMMON | {"time_started": COMMON["timestamp"], "time_took_us": 1, "score_str": "1.0"}
    rc.JobFinishedPayload(**values)
    with pytest.raises(ValidationError):
        rc.JobFinishedPayload(**values | changes)


def test_an_executors_token_names_its_job() -> None:
    assert len(executor_token(JOB, TRUSTED)) == 73
