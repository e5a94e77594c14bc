"""Nonce, login and JWT: sections 2.3 and 2.4, gap G5."""

from pathlib import Path
from typing import Any

import jwt
import pytest

from compute_horde.chain.port import Directory
from compute_horde.facilitator.facilitator import Facilitator


async def make_nonce(bench: Any) -> str:
    return str((await bench.http.get("/auth/nonce")).json()["nonce"])


async def signed(bench: Any, key: Any, **changes: Any) -> dict[str, Any]:
    nonce = await make_nonce(bench)
    body = {"hotkey": key.ss58_address, "signature": key.sign(nonce.encode()).hex(), "nonce": nonce}
    return {**body, **changes}


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_signed_nonce_gives_a_token(bench: Any, alice: Any, prefix: str) -> None:
    nonce = (await bench.http.get(f"{prefix}/auth/nonce")).json()["nonce"]
    body = {"hotkey": alice.ss58_address, "signature": alice.sign(nonce.encode()).hex(), "nonce": nonce}
    answer = await bench.http.post(f"{prefix}/auth/login", json=body)
    assert answer.status_code == 200
    token = answer.json()["token"]
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {"sub", "iat", "exp"}
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (alice.ss58_address, 3600)


async def test_a_nonce_logs_in_once_g5(bench: Any, alice: Any) -> None:
    body = await signed(bench, alice)
    assert (await bench.http.post("/auth/login", json=body)).status_code == 200
    again = await bench.http.post("/auth/login", json=body)
    assert (again.status_code, again.json()) == (400, {"error": "Nonce expired or not found"})


async def test_a_nonce_expires_g5(bench: Any, alice: Any) -> None:
    body = await signed(bench, alice)
    bench.clock.ahead += 301
    answer = await bench.http.post("/auth/login", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "Nonce expired or not found"})


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"hotkey": ""}, 400, "Missing hotkey"),
        ({"signature": None}, 400, "Missing signature"),
        ({"nonce": ""}, 400, "Missing nonce"),
        ({"hotkey": "", "signature": "", "nonce": ""}, 400, "Missing hotkey"),
        ({"nonce": "tampered"}, 400, "Invalid nonce"),
        ({"nonce": "a:b:\u00e9"}, 400, "Invalid nonce"),
        ({"signature": "0x" + "00" * 64}, 400, "Nonce expired or not found"),
        ({"signature": "xyz"}, 400, "Nonce expired or not found"),
        ({"signature": "00" * 64}, 401, "Invalid signature"),
        ({"signature": "00"}, 401, "Invalid signature"),
    ],
)
async def test_each_refusal_has_its_words(
    bench: Any, alice: Any, changes: dict[str, Any], status: int, error: str
) -> None:
    answer = await bench.http.post("/auth/login", json=await signed(bench, alice, **changes))
    assert (answer.status_code, answer.json()) == (status, {"error": error})


async def test_a_hotkey_that_is_not_ss58_is_refused(bench: Any, alice: Any) -> None:
    answer = await bench.http.post("/auth/login", json=await signed(bench, alice, hotkey="nobody"))
    assert (answer.status_code, answer.json()) == (400, {"error": "Nonce expired or not found"})


async def test_a_hotkey_that_is_not_whitelisted_is_refused_last(bench: Any, other_key: Any) -> None:
    answer = await bench.http.post("/auth/login", json=await signed(bench, other_key))
    assert (answer.status_code, answer.json()) == (400, {"error": "Hotkey not allowed"})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"x"'])
async def test_a_malformed_login_is_400(bench: Any, content: bytes) -> None:
    assert (await bench.http.post("/auth/login", content=content)).status_code == 400


def token_of(bench: Any, **claims: Any) -> str:
    tokens = bench.facilitator.login._tokens  # a token with odd claims, signed with the true key
    now = int(bench.clock())
    return jwt.encode({"iat": now, "exp": now + 60, **claims}, tokens._key, "HS256")


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "Authentication credentials were not provided."),
        ("", "Authentication credentials were not provided."),
        ("Token abc", "Authentication credentials were not provided."),
        ("Bearer", "Invalid token header format."),
        ("Bearer a b", "Invalid token header format."),
        ("Bearer  a", "Invalid token header format."),
        ("Bearer \u00e9", "Invalid token header encoding."),
        ("Bearer nonsense", "Token decode error."),
    ],
)
async def test_each_bad_authorization_is_401(bench: Any, header: str | None, detail: str) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    answer = await bench.http.get("/api/v1/jobs/", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_an_expired_token_is_401(bench: Any) -> None:
    token = await bench.login()
    bench.clock.ahead += 3601
    answer = await bench.http.get("/api/v1/jobs/", headers=token)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Token expired."})


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({}, "Token missing subject."),
        ({"sub": ""}, "Token missing subject."),
        ({"sub": "x", "exp": 1.5}, "Token decode error."),
        ({"sub": "x"}, "Unauthorized hotkey."),
    ],
)
async def test_a_token_with_odd_claims_is_401(bench: Any, claims: dict[str, Any], detail: str) -> None:
    headers = {"Authorization": f"bearer {token_of(bench, **claims)}"}
    answer = await bench.http.get("/api/v1/jobs/", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})


async def test_a_token_signed_by_another_is_401(bench: Any, alice: Any) -> None:
    forged = jwt.encode({"sub": alice.ss58_address, "exp": int(bench.clock()) + 60}, "k" * 32, "HS256")
    answer = await bench.http.get("/api/v1/jobs/", headers={"Authorization": f"Bearer {forged}"})
    assert answer.json() == {"detail": "Token decode error."}


async def test_the_whitelist_is_asked_at_each_request(bench: Any) -> None:
    token = await bench.login()
    bench.chain.current = Directory()
    answer = await bench.http.get("/api/v1/jobs/", headers=token)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized hotkey."})


async def test_tokens_survive_a_restart(bench: Any, tmp_path: Path) -> None:
    token = (await bench.login())["Authorization"]
    again = Facilitator(bench.facilitator.settings, bench.chain)
    await again.open()
    assert again.login.session(token).hotkey
    await again.close()


async def test_a_configured_secret_signs(bench: Any) -> None:
    settings = bench.facilitator.settings.model_copy(update={"database_url": "sqlite+aiosqlite:///:memory:"})
    made = [Facilitator(settings.model_copy(update={"secret": s}), bench.chain) for s in (None, None)]
    for facilitator in made:
        await facilitator.open()
    token = made[0].login._tokens.make("x", bench.clock())
    with pytest.raises(Exception, match="Token decode error"):
        made[1].login.session(f"Bearer {token}")
    for facilitator in made:
        await facilitator.close()
