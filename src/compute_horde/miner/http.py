"""The miner's edge: two WebSockets and a few pages on one port (sections 6.1, 7.1, 7.5, 9.4)."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Request, Response, WebSocket, get, websocket
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from compute_horde.miner import pages
from compute_horde.miner.executor_session import ExecutorDoor
from compute_horde.miner.receipts import ReceiptBook
from compute_horde.miner.validator_session import ValidatorDoor
from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.miner_executor import EXECUTOR_PATH
from compute_horde.protocol.validator_miner import VALIDATOR_PATH
from compute_horde.transport.served import ServedChannel

Socket = WebSocket[Any, Any, State]


def make_app(
    validators: ValidatorDoor,
    executors: ExecutorDoor,
    book: ReceiptBook | None,
    operations: Sequence[HTTPRouteHandler],
) -> Litestar:
    """The application; everything that it needs is an argument. ``operations``: health, and perhaps metrics."""

    @websocket(VALIDATOR_PATH + "{hotkey:str}", name="validator_interface")
    async def validator_interface(socket: Socket, hotkey: FromPath[str]) -> None:
        await socket.accept(headers=announcement())
        await validators.serve(ServedChannel(socket), hotkey)

    @websocket(EXECUTOR_PATH + "{token:str}", name="executor_interface")
    async def executor_interface(socket: Socket, token: FromPath[str]) -> None:
        await socket.accept(headers=announcement())
        await executors.serve(ServedChannel(socket), token)

    @get("/receipts/{name:str}")
    async def receipt_page(request: Request[Any, Any, State], name: FromPath[str]) -> Response[bytes]:
        headers = request.headers
        found = pages.Answer(404)
        if book is not None:
            found = await pages.answer(book, name, headers.get("range"), headers.get("accept-encoding"))
        return Response(
            found.body, status_code=found.status, headers=found.headers, media_type="application/x-ndjson"
        )

    @get("/version", sync_to_thread=False)
    def show_version() -> dict[str, str]:
        ours = version("compute-horde")
        return {"miner_version": ours, "runner_version": ours}

    return Litestar(
        [validator_interface, executor_interface, receipt_page, show_version, *operations],
        openapi_config=None,
        logging_config=None,
    )
