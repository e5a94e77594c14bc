"""What a job is described with: volumes, uploads, arguments; checked before anything is sent."""

import base64
import io
import json
import uuid
import zipfile
from typing import Any

import pytest

from compute_horde.protocol.signing import SignedFields, digest
from compute_horde_sdk._internal.address import facilitator_root
from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.request import encode_body, job_body
from compute_horde_sdk.v1 import (
    ComputeHordeClient,
    ComputeHordeJobSpec,
    ComputeHordeValidationError,
    ExecutorClass,
    HTTPInputVolume,
    HTTPOutputVolume,
    HuggingfaceInputVolume,
    InlineInputVolume,
)

ORDER_FIELDS = ("validator_hotkey", "queue", "on_trusted_miner", "cross_validates", "streaming_certificate")


def body(**changes: Any) -> dict[str, Any]:
    """The body of a job that is fine but for ``changes``: fields of the spec, or of the order."""
    order = {name: changes.pop(name) for name in ORDER_FIELDS if name in changes}
    given: dict[str, Any] = {
        "executor_class": "always_on.test",
        "job_namespace": None,
        "docker_image": "alpine:3.19",
    }
    limits = {"download_time_limit_sec": 5, "execution_time_limit_sec": 10, "upload_time_limit_sec": 7}
    spec = ComputeHordeJobSpec(**{**given, **limits, **changes})
    return job_body(Order(spec, **{"validator_hotkey": "v", **order}))


def unzipped(volume: dict[str, Any]) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(volume["contents"]))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_signed_bytes_are_those_of_the_released_client() -> None:
    made = body(
        executor_class=ExecutorClass.always_on__llm__a6000,
        job_namespace="SN123.0",
        args=["sh", "-c", 'echo "héllo"'],
        env={"B": "2", "A": "1"},
        artifacts_dir="/artifacts",
        input_volumes={"/volume/data.json": HTTPInputVolume(url="https://example.com/data.json")},
        output_volumes={"/output/out.txt": HTTPOutputVolume("PUT", "https://example.com/out?sig=1")},
    )
    assert json.loads(encode_body(made)) == made
    assert digest(1735689600000000000, SignedFields.from_body(made).payload()).hex() == (
        "d82d8e809aca88508a43fb0d6ff136f57690540f7b0c21f74ff1180eb07660b2"
        "c90fff0f3b8ad0c4b803d4dbf3d693f4813b50d487c127455b324a3a98f3ee52"
    )


def test_key_order_and_nulls() -> None:
    made = body(
        input_volumes={
            "/volume/a": HuggingfaceInputVolume(repo_id="u/m"),
            "/volume/b/": InlineInputVolume.from_file_contents("f", b"x"),
        },
        output_volumes={
            "/output/p": HTTPOutputVolume("POST", "https://e.com"),
            "/output/q/r": HTTPOutputVolume("PUT", "https://e.com", signed_headers={"X": "1"}),
        },
    )
    assert [list(volume) for volume in made["volumes"]] == [
        ["volume_type", "repo_id", "repo_type", "revision", "relative_path", "allow_patterns", "token"],
        ["volume_type", "contents", "relative_path"],
    ]
    assert [list(upload) for upload in made["uploads"]] == [
        ["output_upload_type", "url", "form_fields", "relative_path", "signed_headers"],
        ["output_upload_type", "url", "relative_path", "signed_headers"],
    ]
    assert made["volumes"][1]["relative_path"] == "b"
    assert made["uploads"][0]["form_fields"] is None
    assert made["artifacts_dir"] == ""


def test_plain_inline_contents_become_the_file_at_the_mount_path() -> None:
    plain = InlineInputVolume(contents="dmVyc2lvbj0y")
    nested, top = body(input_volumes={"/volume/data/version.txt": plain, "/volume/v.txt": plain})["volumes"]
    assert nested["relative_path"] == "data"
    assert unzipped(nested) == {"version.txt": b"version=2"}
    assert top["relative_path"] is None
    assert unzipped(top) == {"v.txt": b"version=2"}


@pytest.mark.parametrize("compress", [False, True])
def test_a_zip_is_unpacked_into_the_mount_path_as_it_is(compress: bool) -> None:
    volume = InlineInputVolume.from_file_contents("in.txt", b"hello" * 50, compress=compress)
    (wire,) = body(input_volumes={"/volume/data": volume})["volumes"]
    assert (wire["contents"], wire["relative_path"]) == (volume.contents, "data")
    assert unzipped(wire) == {"in.txt": b"hello" * 50}
    assert body(input_volumes={"/volume/": volume})["volumes"][0]["relative_path"] is None


def test_something_that_only_starts_like_a_zip_is_a_file() -> None:
    contents = base64.b64encode(b"PK\x03\x04 no zip at all").decode()
    (wire,) = body(input_volumes={"/volume/x.bin": InlineInputVolume(contents)})["volumes"]
    assert unzipped(wire) == {"x.bin": b"PK\x03\x04 no zip at all"}


def test_base64_may_be_wrapped_in_lines() -> None:
    wrapped = base64.encodebytes(b"y" * 200).decode()
    (wire,) = body(input_volumes={"/volume/y": InlineInputVolume(wrapped)})["volumes"]
    assert unzipped(wire) == {"y": b"y" * 200}


INLINE = InlineInputVolume("eA==")
FETCHED = HTTPInputVolume("http://e.com/x")
PUT = HTTPOutputVolume("PUT", "http://e.com/x")

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("executor_class", {"executor_class": "always_on.gpu-9000gb"}),
    ("executor_class", {"executor_class": None}),
    ("docker_image", {"docker_image": ""}),
    ("docker_image", {"docker_image": " alpine"}),
    ("docker_image", {"docker_image": 3}),
    ("docker_image", {"docker_image": "a" * 256}),
    ("docker_image", {"docker_image": None}),
    ("job_namespace", {"job_namespace": 3}),
    ("job_namespace", {"job_namespace": "n" * 101}),
    ("args", {"args": "python main.py"}),
    ("args", {"args": {"a": 1}}),
    ("args[1]", {"args": ["a", 1]}),
    ("args", {"args": ["a\0"]}),
    ("env", {"env": ["A=1"]}),
    ("env['A']", {"env": {"A": 1}}),
    ("env", {"env": {"A=B": "1"}}),
    ("artifacts_dir", {"artifacts_dir": "relative"}),
    ("artifacts_dir", {"artifacts_dir": "/output/x"}),
    ("artifacts_dir", {"artifacts_dir": 1}),
    ("on_trusted_miner", {"on_trusted_miner": "yes"}),
    ("streaming", {"streaming": 1}),
    ("run_cross_validation", {"run_cross_validation": "yes"}),
    ("compute_horde_validator_hotkey", {"validator_hotkey": ""}),
    ("compute_horde_validator_hotkey", {"validator_hotkey": 3}),
    ("job_queue", {"queue": 3}),
    ("job_queue", {"queue": "q" * 256}),
    ("trusted_output_volumes['/a']", {"trusted_output_volumes": {"/a": HTTPOutputVolume("PUT", "http://e.com")}}),
    ("download_time_limit_sec", {"download_time_limit_sec": True}),
    ("execution_time_limit_sec", {"execution_time_limit_sec": -1}),
    ("upload_time_limit_sec", {"upload_time_limit_sec": 1.5}),
    ("streaming_start_time_limit_sec", {"streaming_start_time_limit_sec": 10**9}),
    ("input_volumes", {"input_volumes": [INLINE]}),
    ("input_volumes['/volume/a']", {"input_volumes": {"/volume/a": "text"}}),
    ("output_volumes['/output/a']", {"output_volumes": {"/output/a": INLINE}}),
    *[
        (f"input_volumes[{path!r}]", {"input_volumes": {path: FETCHED}})
        for path in ("/data/a", "volume/a", "/volume", "/volume/", "/volume/a/", "/volume/../a", "/volume//etc")
    ],
    *[
        (f"input_volumes[{path!r}]", {"input_volumes": {path: INLINE}})
        for path in ("/volume/", "/volume/d/", "/volume/a\\b", "/volume/" + "x" * 256, "/volume/./a", 3)
    ],
    *[
        (f"output_volumes[{path!r}]", {"output_volumes": {path: PUT}})
        for path in (
            "/volume/a",
            "/output",
            "/output/",
            "/output/a/",
            "/output/a/../b",
            "/output//a",
            "/output/\0",
        )
    ],
]


@pytest.mark.parametrize(("field", "changes"), WRONG)
def test_a_wrong_argument_is_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        body(**changes)
    assert caught.value.field == field
    assert caught.value.message


def test_text_that_json_cannot_carry() -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        encode_body({"docker_image": "a", "args": ["\ud800"]})
    assert caught.value.field == "args"


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("contents", lambda: InlineInputVolume("not base64!")),
        ("contents", lambda: InlineInputVolume("eA=")),
        ("contents", lambda: InlineInputVolume("é")),
        ("contents", lambda: InlineInputVolume(b"eA==")),  # type: ignore[arg-type] # the mistake
        ("contents", lambda: InlineInputVolume.from_file_contents("f", "text")),  # type: ignore[arg-type] # the mistake
        ("filename", lambda: InlineInputVolume.from_file_contents("../f", b"")),
        ("filename", lambda: InlineInputVolume.from_file_contents("", b"")),
        ("url", lambda: HTTPInputVolume("ftp://e.com/x")),
        ("url", lambda: HTTPInputVolume("http://")),
        ("url", lambda: HTTPInputVolume("http://e.com/a b")),
        ("url", lambda: HTTPInputVolume(None)),  # type: ignore[arg-type] # the mistake
        ("url", lambda: HTTPInputVolume("http://e.com:99999/")),
        ("repo_id", lambda: HuggingfaceInputVolume(" ")),
        ("repo_type", lambda: HuggingfaceInputVolume("u/m", repo_type="models")),
        ("sha256", lambda: HTTPInputVolume("http://e.com/x", sha256="abc")),
        ("sha256", lambda: HTTPInputVolume("http://e.com/x", sha256=b"0" * 64)),  # type: ignore[arg-type] # the mistake
        ("url", lambda: HTTPInputVolume("http://e.com/x#part", sha256="0" * 64)),
        ("contents", lambda: InlineInputVolume("eA==", unpack=True)),
        ("data", lambda: InlineInputVolume.from_bytes("text")),  # type: ignore[arg-type] # the mistake
        ("text", lambda: InlineInputVolume.from_text(b"bytes")),  # type: ignore[arg-type] # the mistake
        ("text", lambda: InlineInputVolume.from_text("é", encoding="ascii")),
        ("text", lambda: InlineInputVolume.from_text("é", encoding="no-such-thing")),
        ("revision", lambda: HuggingfaceInputVolume("u/m", revision="")),
        ("allow_patterns", lambda: HuggingfaceInputVolume("u/m", allow_patterns=[1])),  # type: ignore[list-item]
        ("http_method", lambda: HTTPOutputVolume("PATCH", "http://e.com")),  # type: ignore[arg-type] # the mistake
        ("url", lambda: HTTPOutputVolume("PUT", "file:///etc/passwd")),
        ("form_fields", lambda: HTTPOutputVolume("PUT", "http://e.com", form_fields={"a": "b"})),
        ("signed_headers['a']", lambda: HTTPOutputVolume("PUT", "http://e.com", signed_headers={"a": 1})),  # type: ignore[dict-item]
    ],
)
def test_a_wrong_volume_cannot_be_made(field: str, make: Any) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("end", ["", "/", "/api/v1", "/api/v1/"])
@pytest.mark.parametrize("start", ["http://127.0.0.1:8000", "https://horde.example/below"])
def test_the_facilitator_may_be_written_in_any_way(start: str, end: str) -> None:
    assert facilitator_root(start + end) == start


@pytest.mark.parametrize(
    "url", ["", "horde.example", "ws://h", "http://h/?a=1", "http://u:p@h/", "http://h/#x", 3]
)
def test_other_facilitator_addresses_are_refused(url: str) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        ComputeHordeClient(FakeFacilitator().hotkey, "v", facilitator_url=url)
    assert caught.value.field == "facilitator_url"


def test_keys_are_checked() -> None:
    with pytest.raises(ComputeHordeValidationError, match="hotkey must have"):
        ComputeHordeClient(object(), "v")  # type: ignore[arg-type] # the mistake
    with pytest.raises(ComputeHordeValidationError, match="SS58"):
        ComputeHordeClient(FakeFacilitator().hotkey, "")


async def test_a_mistake_is_found_before_anything_is_sent() -> None:
    fake = FakeFacilitator()
    async with fake.client() as client:
        with pytest.raises(ComputeHordeValidationError):
            await client.create_job("nonsense", "ns", "alpine")
    assert fake.requests == []


@pytest.mark.parametrize("queue", ["", "q" * 256, 3, " q", "q ", "a\0b", "a\nb"])
def test_a_queue_is_a_name(queue: Any) -> None:
    with pytest.raises(ComputeHordeValidationError) as caught:
        ComputeHordeClient(FakeFacilitator().hotkey, "v", job_queue=queue)
    assert caught.value.field == "job_queue"


def test_what_is_ours_comes_last_and_only_where_it_is_set() -> None:
    assert list(body())[-1] == "uploads"
    assert body(args=None)["args"] == []
    made = body(
        streaming_certificate="PEM", queue="q", run_cross_validation=True, cross_validates=str(uuid.UUID(int=1))
    )
    assert list(made)[-4:] == ["streaming_details", "tag", "run_cross_validation", "cross_validates"]
    assert made["streaming_details"] == {"public_key": "PEM"}


def test_a_job_that_no_facilitator_takes() -> None:
    with pytest.raises(ComputeHordeValidationError, match="32 MiB") as caught:
        encode_body({"args": ["x" * (33 * 1024 * 1024)]})
    assert "HTTPInputVolume" in caught.value.hint
