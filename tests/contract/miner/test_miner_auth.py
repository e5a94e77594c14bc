"""Who is let in, and what is said before that (sections 6.1 and 6.2; G46)."""

import time
import uuid
from pathlib import Path

import pytest

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.configuration import ConfigurationError
from compute_horde.miner.testing import ALICE, BOB, MINER, TEST, Horde, finished_receipt, initial, open_horde
from compute_horde.protocol.base import TRUSTED_MINER_HOTKEY, Message
from compute_horde.protocol.validator_miner import V0MainHotkeyMessage, ValidatorAuthForMiner


async def refused(horde: Horde, auth: Message) -> tuple[str, str]:
    peer = await horde.validator(admitted=False)
    await peer.say(auth)
    code = (await peer.expect("UnauthorizedError"))["code"]
    details = (await peer.expect("GenericError"))["details"]
    assert await peer.hangup() == 1000
    return code, details


async def test_each_wrong_authentication_is_refused(tmp_path: Path) -> None:
    now = int(time.time())
    prefix = f"Validator {ALICE.ss58_address} not authenticated due to: "
    async with open_horde(tmp_path) as horde:
        forged = horde.auth().model_copy(update={"signature": horde.auth(BOB).signature})
        cases = [
            (horde.auth(timestamp=now - 12), "TOKEN_TOO_OLD", "msg too old"),
            (horde.auth(timestamp=now + 70), "TOKEN_TOO_OLD", "msg too far in the future"),
            (horde.auth(miner_hotkey=BOB.ss58_address), "UNKNOWN_VALIDATOR", "wrong miner hotkey"),
            (horde.auth(BOB), "UNKNOWN_VALIDATOR", "wrong validator hotkey"),
            (forged, "UNKNOWN_VALIDATOR", "Signature mismatches"),
        ]
        for auth, code, why in cases:
            got, details = await refused(horde, auth)
            assert got == code
            assert details.startswith(prefix + why)


async def test_an_unknown_validator_is_told_so_before_it_speaks(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        stranger = throwaway_hotkey("//Stranger")
        peer = await horde.validator(stranger, admitted=False)
        await peer.expect("UnauthorizedError")
        answer = await peer.expect("GenericError")
        assert answer["details"] == f"Unknown validator: {stranger.ss58_address}"
        assert await peer.hangup() == 1000


async def test_messages_before_the_authentication_are_handled_after_it(tmp_path: Path) -> None:
    async with open_horde(tmp_path, main_hotkey="5Main") as horde:
        peer = await horde.validator(admitted=False)
        await peer.say(V0MainHotkeyMessage(), "not json", "PING", initial(str(uuid.uuid4())))
        await peer.silence()
        await peer.say(horde.auth())
        manifest = await peer.expect("V0ExecutorManifestRequest")
        assert manifest["manifest"] == {TEST.value: 2}
        assert (await peer.expect("V0MainHotkeyMessage"))["main_hotkey"] == "5Main"
        assert (await peer.expect("GenericError"))["details"].startswith("Malformed message: ")
        await peer.expect("V0AcceptJobRequest")


async def test_an_unauthenticated_peer_cannot_fill_the_memory(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        peer = await horde.validator(admitted=False)
        await peer.say("x" * 600_000, "x" * 600_000)
        await peer.expect("UnauthorizedError", "GenericError")


async def test_whoever_never_authenticates_is_turned_away(tmp_path: Path) -> None:
    async with open_horde(tmp_path, auth_limit=0.02) as horde:
        peer = await horde.validator(admitted=False)
        await peer.expect("UnauthorizedError", "GenericError")
        assert await peer.hangup() == 1000


async def test_whoever_talks_without_authenticating_is_turned_away(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        peer = await horde.validator(admitted=False)
        await peer.say(*["PING"] * 64)
        await peer.expect("UnauthorizedError", "GenericError")


async def test_an_oversized_frame_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        peer = await horde.validator(frame_limit=5000)
        await peer.say("x" * 5001)
        assert await peer.hangup() == 1009
        await horde.validator()


async def test_malformed_frames_and_pings_leave_the_connection_open(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        peer = await horde.validator()
        await peer.say("PING", '{"message_type": "V9"}')
        assert (await peer.expect("GenericError"))["details"].startswith("Malformed message: ")
        await peer.say('{"message_type": "GenericError", "details": "hm"}', horde.auth(), V0MainHotkeyMessage())
        assert (await peer.expect("V0MainHotkeyMessage"))["main_hotkey"] is None


async def test_a_trusted_miner_knows_one_validator_and_no_receipts(tmp_path: Path) -> None:
    async with open_horde(tmp_path, trusted_for=ALICE.ss58_address) as horde:
        other = await horde.validator(BOB, admitted=False)
        await other.expect("UnauthorizedError", "GenericError")
        wrong = ValidatorAuthForMiner.make(ALICE, MINER.ss58_address, int(time.time()))
        assert "wrong miner hotkey" in (await refused(horde, wrong))[1]
        job = str(uuid.uuid4())
        alice = await horde.validator()
        unsigned = initial(job, receipt_signature="0x00").model_copy(update={"validator_signature": None})
        await alice.say(unsigned)
        await alice.expect("V0AcceptJobRequest")
        await alice.say(finished_receipt(job))
        await alice.expect("V0HordeFailedRequest")
        assert horde.miner.book is None
        assert horde.auth().miner_hotkey == TRUSTED_MINER_HOTKEY


async def test_a_miner_without_a_key_does_not_start(tmp_path: Path) -> None:
    async with open_horde(tmp_path) as horde:
        with pytest.raises(ConfigurationError, match="hotkey"):
            type(horde.miner)(horde.settings, horde.chain, horde.launcher, hotkey=None)
