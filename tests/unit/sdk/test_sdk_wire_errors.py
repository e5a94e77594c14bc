"""Whatever the network and the facilitator do, what leaves the wire side is a ComputeHordeError."""

import gzip
import inspect
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tests.unit.sdk.test_sdk_wire_creating import ORDER

from compute_horde.protocol.extensions import HTTP_EXTENSIONS, announcement
from compute_horde_sdk._internal.exceptions import ComputeHordeError
from compute_horde_sdk._internal.port import JobQuery
from compute_horde_sdk._internal.wire.fake import FakeFacilitator
from compute_horde_sdk._internal.wire.session import Session

UUID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


async def _output(horde: Session) -> None:
    async for _ in horde.output(UUID):
        pass


async def _iterate(horde: Session) -> None:
    async for _ in horde.iterate(None, None):
        pass


METHODS: dict[str, Callable[[Session], Awaitable[object]]] = {
    "extensions": lambda horde: horde.extensions(),
    "authenticate": lambda horde: horde.authenticate(),
    "create": lambda horde: horde.create(ORDER),
    "fetch": lambda horde: horde.fetch(UUID),
    "look": lambda horde: horde.look(UUID),
    "list_jobs": lambda horde: horde.list_jobs(JobQuery()),
    "cancel": lambda horde: horde.cancel(UUID),
    "explain": lambda horde: horde.explain(UUID),
    "report_cheat": lambda horde: horde.report_cheat(UUID, OTHER, None),
    "iterate": _iterate,
    "output": _output,
}


def _httpx_errors() -> list[Exception]:
    """One of each class, save for those that only a caller's own mistake raises."""
    unused = (httpx.HTTPStatusError, httpx.CookieConflict)
    kinds: list[Any] = [kind for kind in vars(httpx).values() if inspect.isclass(kind)]
    kinds = [kind for kind in kinds if issubclass(kind, Exception) and not issubclass(kind, unused)]
    return [kind() if len(inspect.signature(kind).parameters) == 0 else kind("m") for kind in kinds]


ERRORS = [*_httpx_errors(), OSError("broken pipe"), ssl.SSLError("handshake"), TimeoutError()]

ANSWERS: dict[str, Callable[[], httpx.Response]] = {
    "html 500": lambda: httpx.Response(500, html="<h1>Server Error (500)</h1>"),
    "html 200": lambda: httpx.Response(200, html="<p>log in"),
    "empty 200": lambda: httpx.Response(200),
    "empty 204": lambda: httpx.Response(204),
    "not json": lambda: httpx.Response(200, text="{", headers={"Content-Type": "application/json"}),
    "deep json": lambda: httpx.Response(400, text="[" * 100_000),
    "wrong json": lambda: httpx.Response(
        200, json={"token": 3, "uuid": [], "results": {}, "nonce": None, "message": 3}
    ),
    "null": lambda: httpx.Response(200, json=None),
    "list": lambda: httpx.Response(400, json=[[[]], {}, 7]),
    "not utf-8": lambda: httpx.Response(200, content=b'{"nonce": "\xff\xfe"}'),
    "strange charset": lambda: httpx.Response(
        400, content=b"\xff", headers={"Content-Type": "text/plain; charset=nonsense"}
    ),
    "not gzip": lambda: httpx.Response(
        200, stream=httpx.ByteStream(b"not gzip"), headers={"Content-Encoding": "gzip"}
    ),
    "gzip bomb": lambda: httpx.Response(
        200, stream=httpx.ByteStream(gzip.compress(bytes(10_000_000))), headers={"Content-Encoding": "gzip"}
    ),
    "huge": lambda: httpx.Response(200, content=bytes(2_000_000)),
    "redirects": lambda: httpx.Response(302, headers={"Location": "http://horde.test/again"}),
    "redirect nowhere": lambda: httpx.Response(302, headers={"Location": "gopher://x"}),
    "bad redirect": lambda: httpx.Response(302, headers={"Location": "http://[::1"}),
    "unknown status": lambda: httpx.Response(799),
    "bad date": lambda: httpx.Response(
        429, headers={"Retry-After": "Mon, 99 Jan 2025 99:00:00 GMT", "Date": "yesterday"}
    ),
}  # fmt: skip


async def check(fake: FakeFacilitator, method: str, at_login: bool, respond: Callable[[], httpx.Response]) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        if not at_login and request.url.path.startswith("/auth/"):
            return await fake.handle(request)
        response = respond()
        response.headers.update(announcement(HTTP_EXTENSIONS))
        return response

    horde = fake.horde(transport=httpx.MockTransport(handle), max_answer_bytes=1_000_000)
    with pytest.raises(ComputeHordeError) as caught:
        await METHODS[method](horde)
    assert caught.value.code
    assert caught.value.message
    await horde.aclose()


WITHOUT_LOGIN = [name for name in METHODS if name not in ("extensions", "authenticate")]
PLACES = [(name, True) for name in METHODS] + [(name, False) for name in WITHOUT_LOGIN]


@pytest.mark.parametrize(("method", "at_login"), PLACES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_errors_of_the_transport(error: Exception, method: str, at_login: bool) -> None:
    def fail() -> httpx.Response:
        raise error

    await check(FakeFacilitator(), method, at_login, fail)


@pytest.mark.parametrize(("method", "at_login"), PLACES)
@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_that_make_no_sense(name: str, method: str, at_login: bool) -> None:
    await check(FakeFacilitator(), method, at_login, ANSWERS[name])


async def test_a_stream_of_events_is_no_exception() -> None:
    """Waiters are told to look instead, and the look tells."""
    for respond in ANSWERS.values():
        fake = FakeFacilitator()
        horde = fake.horde()
        made = await horde.create(ORDER)
        fake.fail("/api/v1/events/", *[respond() for _ in range(3)])
        async with horde.subscribe(made.uuid) as news:
            news.refreshing()
            assert await news.next(0.001) is None
        await horde.aclose()


def test_every_method_of_the_port_is_tried() -> None:
    methods = {name for name, _ in inspect.getmembers(Session, inspect.isfunction) if not name.startswith("_")}
    assert methods - set(METHODS) <= {"aclose", "subscribe", "repeat_on_trusted_miner"}
