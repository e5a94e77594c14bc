"""What is offered beyond the network's API is said in every answer, and used only towards those who know it."""

from typing import Any

import pytest

from compute_horde.protocol.extensions import EXTENSIONS_HEADER, HTTP_EXTENSIONS, Extension, announced


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/auth/nonce", 200),
        ("GET", "/health/live", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/api/v1/jobs/", 401),
        ("POST", "/auth/login", 400),
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/v1/jobs/", 405),
    ],
)
async def test_every_answer_announces_the_extensions(bench: Any, method: str, path: str, status: int) -> None:
    answer = await bench.http.request(method, path)
    assert answer.status_code == status
    assert announced(answer.headers) == HTTP_EXTENSIONS


async def test_answers_to_too_large_bodies_and_crashes_announce_too(bench: Any, monkeypatch: Any) -> None:
    token = await bench.login()
    large = await bench.http.post("/auth/login", content=b" " * 3_100_000)
    assert (large.status_code, announced(large.headers)) == (413, HTTP_EXTENSIONS)

    async def broken(*_args: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(bench.facilitator.job_list, "page", broken)
    crashed = await bench.http.get("/api/v1/jobs/", headers=token)
    assert (crashed.status_code, announced(crashed.headers)) == (500, HTTP_EXTENSIONS)


async def test_a_links_extensions_are_those_of_its_handshake(bench: Any, other_key: Any) -> None:
    await bench.validator(headers={EXTENSIONS_HEADER.lower(): "logs flying"})
    await bench.validator(other_key)
    assert [link.extensions for link in bench.facilitator.links.all()] == [{Extension.LOGS}, frozenset()]
