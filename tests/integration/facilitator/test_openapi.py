"""What /openapi.json promises is what the service does: schemathesis asks it, logged in."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import Directory
from compute_horde.chain.static import FixedChain
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings

ALICE = throwaway_hotkey("//Alice")


class Running:
    """The service in a thread of its own, since schemathesis asks synchronously."""

    def __init__(self, service: FacilitatorService) -> None:
        self.service, self.loop = service, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> "Running":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.service.start(), self.loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.service.stop(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database: Path = tmp_path_factory.mktemp("facilitator") / "facilitator.db"
    service = FacilitatorService(
        FacilitatorSettings(port=0, database_url=f"sqlite+aiosqlite:///{database}"),
        FixedChain(Directory(users=frozenset({ALICE.ss58_address}))),
    )
    with Running(service):
        yield service.url


@pytest.fixture(scope="module")
def authorization(url: str) -> str:
    nonce = httpx.get(f"{url}auth/nonce").json()["nonce"]
    body = {"hotkey": ALICE.ss58_address, "signature": ALICE.sign(nonce.encode()).hex(), "nonce": nonce}
    return f"Bearer {httpx.post(f'{url}auth/login', json=body).json()['token']}"


OPERATIONS = [
    ("GET", "/auth/nonce"),
    ("POST", "/auth/login"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/api/v1/job-docker"),
    ("GET", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/{uuid}"),
    ("POST", "/api/v1/jobs/{uuid}/cancel"),
    ("GET", "/api/v1/jobs/{uuid}/logs"),  # of made-up jobs only, so no answer is without end
    ("GET", "/api/v1/jobs/{uuid}/feedback"),
    ("PUT", "/api/v1/jobs/{uuid}/feedback"),
    ("POST", "/api/v1/jobs/{uuid}/feedback"),
    ("POST", "/api/v1/cheated-job"),
]  # all but the events, whose answer has no end

TAKES_ANYTHING = ("/auth/nonce", "/auth/login", "/health/live", "/health/ready")
"""No input of these breaks their schema, so there is nothing negative to send."""

CASES = [
    (method, path, mode)
    for method, path in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path not in TAKES_ANYTHING
]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_every_operation_keeps_its_description(
    url: str, authorization: str, method: str, path: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{url}openapi.json")
    schema.config.generation.update(allow_extra_parameters=False)  # ignored, as the network's services do
    operation = schema[path][method]

    @settings(
        max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: "schemathesis.Case[Any]") -> None:
        case.call_and_validate(
            session=session,
            headers={"Authorization": authorization},
            excluded_checks=[positive_data_acceptance],  # no made-up nonce or signature is ever accepted
        )

    with requests.Session() as session:
        ask()


def test_the_description_names_every_operation(url: str) -> None:
    found = httpx.get(f"{url}openapi.json").json()
    assert set(found["paths"]) == {
        "/auth/nonce",
        "/auth/login",
        "/health/live",
        "/health/ready",
        "/api/v1/job-docker",
        "/api/v1/jobs",
        "/api/v1/jobs/{uuid}",
        "/api/v1/jobs/{uuid}/cancel",
        "/api/v1/jobs/{uuid}/explanation",
        "/api/v1/jobs/{uuid}/logs",
        "/api/v1/jobs/{uuid}/feedback",
        "/api/v1/cheated-job",
        "/api/v1/events",
    }
    assert "#/$defs" not in json.dumps(found)
