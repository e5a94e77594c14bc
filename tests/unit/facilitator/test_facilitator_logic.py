"""Pure parts of the facilitator: paging, nonces, admission, the view's times, settings."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.chain.keys import throwaway_hotkey, verify
from compute_horde.facilitator.admission import SignatureRules, admit_job, job_message, time_budget
from compute_horde.facilitator.errors import ApiError
from compute_horde.facilitator.paging import PageQuery, whole_number
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.facilitator.tables import microseconds, moment
from compute_horde.facilitator.tokens import NonceExpired, NonceInvalid, Nonces, Tokens
from compute_horde.facilitator.validators import Link, Links
from compute_horde.protocol.facilitator_validator import FACILITATOR_TO_VALIDATOR, V2JobRequest
from compute_horde.protocol.sdk_facilitator import JobRequest
from compute_horde.protocol.signing import SignatureScope, SignedFields, sign_payload, verify_payload
from compute_horde.transport.memory import memory_pair

ALICE = throwaway_hotkey("//Alice")


def job_body(**changes: Any) -> dict[str, Any]:
    limits = dict.fromkeys(
        ("download_time_limit", "execution_time_limit", "streaming_start_time_limit", "upload_time_limit"), 10
    )
    made = {"target_validator_hotkey": "v", "executor_class": "always_on.test", "docker_image": "alpine"}
    return {**made, **limits, **changes}


@given(args=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_the_validator_finds_every_admitted_signature_valid(args: list[str]) -> None:
    body = job_body(args=args, env={"Z": "1", "A": "2"})
    text = SignedFields.from_body(body).payload()
    signature = sign_payload(ALICE, text, SignatureScope.SIGNED_FIELDS, time.time_ns())
    request = admit_job(body, signature, SignatureRules(ALICE.ss58_address, time.time(), 300, verify))
    frame = job_message("u", request, signature, body).to_frame()
    arrived = FACILITATOR_TO_VALIDATOR.validate_json(frame)
    assert isinstance(arrived, V2JobRequest)
    assert verify_payload(arrived.signature, arrived.signed_fields().payload(), verify)


def test_a_streaming_jobs_budget_has_its_start_limit() -> None:
    plain = time_budget(JobRequest.model_validate(job_body()), 0)
    streaming = time_budget(JobRequest.model_validate(job_body(streaming_details={"public_key": "PEM"})), 0)
    assert (plain, streaming) == (7 + 303 + 5 + 30, 7 + 303 + 5 + 40)


def test_a_nonce_is_bound_to_its_secret_and_time() -> None:
    nonces = Nonces("secret", 300)
    nonce = nonces.make(1000.5)
    assert nonces.expiry(nonce, 1299) == 1300
    with pytest.raises(NonceExpired):
        nonces.expiry(nonce, 1300)
    with pytest.raises(NonceInvalid):
        Nonces("other", 300).expiry(nonce, 1001)


@given(st.text())
def test_no_text_breaks_the_nonce_check(text: str) -> None:
    with pytest.raises(NonceInvalid):
        Nonces("secret", 300).expiry(text, 0)


@given(st.text())
def test_no_text_breaks_the_token_check(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        Tokens("secret", 300).hotkey_and_expiry(f"Bearer {text}", 0)
    assert refused.value.status == 401


def test_links_keep_the_other_parameters() -> None:
    query = PageQuery.parse([("tag", "a b"), ("page", "2"), ("page_size", "999")])
    assert (query.page, query.page_size, query.offset) == (2, 256, 256)
    assert query.link("http://x/", "page", 3) == "http://x/?tag=a+b&page_size=999&page=3"
    assert query.link("http://x/", "before", "u") == "http://x/?tag=a+b&page_size=999&before=u"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\u0663", "9" * 30])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text) is None


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000))
def test_moments_keep_their_microseconds(us: int) -> None:
    assert moment(us).microsecond == us % 1_000_000


def test_seconds_become_microseconds() -> None:
    assert microseconds(1.5) == 1_500_000


def test_the_newest_fresh_link_is_used() -> None:
    links = Links()
    old, new = (Link("v", memory_pair()[0], 1, heard_at) for heard_at in (1000.0, 900.0))
    links.add(old)
    links.add(new)
    assert links.usable("v", 1000) is new
    assert links.usable("v", 1090) is old
    assert links.usable("v", 1180) is None
    links.remove(new)
    links.remove(new)
    links.remove(old)
    assert links.all() == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HORDE_FACILITATOR_PORT", "0")
    monkeypatch.setenv("HORDE_FACILITATOR_SECRET", "hush")
    settings = FacilitatorSettings()
    assert settings.port == 0
    assert "hush" not in repr(settings)
