"""The validator's rules without I/O: routing, receipts, stages, outcomes, the gate."""

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_horde.chain.keys import throwaway_hotkey, verify
from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import FixedChain
from compute_horde.configuration import ConfigurationError
from compute_horde.lifecycle.deadlines import Limits
from compute_horde.lifecycle.failures import KINDS, problem
from compute_horde.lifecycle.states import PROGRESS, TERMINAL, JobState
from compute_horde.protocol.enums import ExecutorClass, Fault, HordeFailureReason
from compute_horde.protocol.receipts import MAX_TTL_SECONDS
from compute_horde.protocol.signing import InvalidSignature, SignatureScope, sign_payload, verify_hex
from compute_horde.validator import outcomes, requests, routing, stages
from compute_horde.validator.intake import Gate, replay_key
from compute_horde.validator.receipts import ReceiptBook
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.rows import Incident
from compute_horde.validator.settings import ValidatorSettings
from compute_horde.validator.testing.scripted import UNSIGNED, job_request

ALICE, BOB = throwaway_hotkey("//Alice"), throwaway_hotkey("//Bob")
JOB = "11111111-1111-4111-8111-111111111111"
TEST, GPU = ExecutorClass.always_on__test, ExecutorClass.always_on__gpu_24gb
MINERS = [MinerEndpoint(hotkey=f"m{n}", address="h", port=1) for n in range(4)]


def order(manifests: dict[str, Any], incidents: dict[str, int], seed: int = 0) -> list[str]:
    chosen = routing.choose(MINERS, TEST, manifests, incidents, random.Random(seed))
    return [miner.hotkey for miner in chosen]


# routing


@given(
    st.dictionaries(st.sampled_from(["m0", "m1", "m2", "m3"]), st.just({TEST: 1}) | st.just({GPU: 1})),
    st.dictionaries(st.sampled_from(["m0", "m1", "m2", "m3"]), st.integers(0, 5)),
    st.integers(),
)
def test_every_miner_is_tried_once_and_the_better_ones_first(
    manifests: dict[str, Any], incidents: dict[str, int], seed: int
) -> None:
    names = order(manifests, incidents, seed)
    assert sorted(names) == ["m0", "m1", "m2", "m3"]
    ranks = [(manifests.get(name, {TEST: 1}).get(TEST, 0) == 0, incidents.get(name, 0)) for name in names]
    assert ranks == sorted(ranks)
    assert names == order(manifests, incidents, seed)


def test_equal_miners_share_the_load() -> None:
    assert {order({}, {}, seed)[0] for seed in range(50)} == {"m0", "m1", "m2", "m3"}


def test_a_class_with_no_executors_is_not_offered() -> None:
    assert routing.offers({TEST: 1}, TEST)
    assert not routing.offers({TEST: 0}, TEST)
    assert not routing.offers({}, TEST)


def test_an_old_incident_no_longer_counts() -> None:
    reputation = Reputation()
    for at in (0.0, 100.0, 100.0):
        reputation.note(Incident("m0", JOB, "miner_silent", at))
    assert reputation.recent(routing.INCIDENT_MEMORY_SECONDS + 50) == {"m0": 2}
    assert reputation.recent(routing.INCIDENT_MEMORY_SECONDS + 101) == {}


# receipts (section 9.1)


def book(**limits: float) -> ReceiptBook:
    values = {"download": 5.0, "execution": 10.0, "upload": 7.0} | limits
    return ReceiptBook(ALICE, JOB, BOB.ss58_address, TEST, Limits(**values))


def test_receipts_carry_their_time_to_live_and_score() -> None:
    assert book().started(1735689600.5).ttl == 7
    assert book(streaming_start=4).accepted(1735689600).ttl == 3 + 300 + 5 + 5 + 10 + 7 + 4
    assert book(execution=1e9).accepted(1735689600).ttl == MAX_TTL_SECONDS
    finished = book().finished(1735689602, 1735689600.5, paid=True)
    assert (finished.score_str, finished.time_took_us, finished.block_numbers) == ("22.000000", 1_500_000, [])
    assert book().finished(1735689602, 1735689600, paid=False).score_str == "0.000000"
    assert book().finished(1735689600, 1735689602, paid=False).time_took_us == 0  # the clock was set back
    assert book(download=-1e3).finished(1735689602, 1735689600, paid=True).score_str == "0.000000"


def test_a_receipt_is_signed_by_the_validator() -> None:
    payload = book().started(time.time())
    issued = book().issue(payload)
    assert (issued.job_uuid, issued.kind) == (JOB, "JobStartedReceipt")
    assert verify_hex(verify, ALICE.ss58_address, payload.signed_bytes(), issued.signature)


# stages and outcomes


def test_the_stages_have_their_own_limits_and_failures() -> None:
    limits = Limits(download=1, execution=2, upload=3, streaming_start=4)
    plain = list(stages.stages_after_ready(limits, streaming=False))
    assert [(s.target.value, s.limit) for s in plain] == [
        ("volumes_ready", 1),
        ("execution_done", 2),
        ("completed", 3),
    ]
    streaming = list(stages.stages_after_ready(limits, streaming=True))
    assert [s.limit for s in streaming] == [1, 4, 2, 3]
    assert {s.late for s in streaming} < set(stages.LATE) <= set(KINDS)


def test_past_means_reached_or_skipped_or_ended() -> None:
    for index, state in enumerate(PROGRESS):
        assert [stages.is_past(state, target) for target in PROGRESS] == [n <= index for n in range(len(PROGRESS))]
        assert not stages.is_past(state, JobState.COMPLETED)
    assert all(stages.is_past(state, JobState.COMPLETED) for state in TERMINAL)


@pytest.mark.parametrize("code", sorted(code for code, kind in KINDS.items() if kind.fault is not Fault.USER))
def test_the_validators_own_findings_become_horde_failures(code: str) -> None:
    ended = outcomes.horde_failed(problem(code, "m"))
    assert ended.state is JobState.HORDE_FAILED
    assert ended.blame == (code if KINDS[code].fault is Fault.MINER else None)
    assert ended.metadata.horde_failure_details is not None
    assert ended.metadata.horde_failure_details.reason is not HordeFailureReason.UNKNOWN


def test_limits_come_from_the_job_and_the_settings() -> None:
    settings = ValidatorSettings(leeway=1, reservation_limit=2, executor_startup_limit=3)
    request = job_request(JOB, ALICE, download_time_limit=4, streaming_start_time_limit=9)
    limits = requests.limits_of(request, settings)
    assert (limits.download, limits.leeway, limits.reservation, limits.startup) == (4, 1, 2, 3)
    assert limits.streaming_start == 0  # not a streaming job
    streaming = job_request(JOB, ALICE, streaming_start_time_limit=9, streaming_details={"public_key": "PEM"})
    assert requests.limits_of(streaming, settings).streaming_start == 9


# the gate (section 5.4)

GATE = Gate(BOB.ss58_address, FixedChain(Directory(signers=frozenset({ALICE.ss58_address}))), verify, 300)


@pytest.mark.parametrize("signer", [ALICE, BOB])
def test_whitelisted_and_own_signatures_are_let_in(signer: Any) -> None:
    request = job_request(JOB, signer)
    key = GATE.check(request, time.time_ns())
    again = job_request(JOB, signer, timestamp_ns=request.signature.timestamp_ns)
    assert again.signature.signature != request.signature.signature
    assert GATE.check(again, time.time_ns()) == key  # signed anew, yet the same text at the same moment
    assert GATE.check(job_request(JOB, signer), time.time_ns()) != key


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"signature": UNSIGNED}, "Signature is empty"),
        ({"docker_image": "evil"}, "Bad signature"),
        ({"env": {"A": "1", "B": "2"}}, "Bad signature"),  # the order of keys is signed
        ({"download_time_limit": 1}, "Bad signature"),
        ({"on_trusted_miner": True}, "Bad signature"),
    ],
)
def test_what_was_not_signed_is_not_let_in(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSignature, match=text):
        GATE.check(job_request(JOB, ALICE).model_copy(update=changes), time.time_ns())


def test_what_is_not_signed_may_differ() -> None:
    request = job_request(JOB, ALICE).model_copy(update={"job_namespace": "SN1"})
    assert GATE.check(request, time.time_ns())


def test_old_and_future_signatures_are_not_let_in() -> None:
    now = time.time_ns()
    for timestamp_ns, text in ((now - 301 * 10**9, "old"), (now + 61 * 10**9, "future")):
        with pytest.raises(InvalidSignature, match=text):
            GATE.check(job_request(JOB, ALICE, timestamp_ns=timestamp_ns), now)


def test_two_users_may_sign_the_same_text_at_the_same_moment() -> None:
    made = [sign_payload(key, "x", SignatureScope.SIGNED_FIELDS, 1) for key in (ALICE, BOB)]
    assert replay_key(made[0], "x") != replay_key(made[1], "x")


# settings


def test_settings_come_from_the_environment_and_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HORDE_VALIDATOR_LEEWAY", "2.5")
    assert ValidatorSettings().leeway == 2.5
    for wrong in ({"leeway": -1}, {"trusted_miner_port": 0}, {"reservation_limit": 0}, {"no_such": 1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            ValidatorSettings.load(None, **wrong)
