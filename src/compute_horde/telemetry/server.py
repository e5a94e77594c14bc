"""Health and metrics over HTTP: as routes of a service's own application, or on an address of their own."""

import hmac
import json
from typing import Any

import structlog
from litestar import Litestar, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from pydantic import SecretStr

from compute_horde.telemetry.health import Health, Report
from compute_horde.telemetry.metrics import CONTENT_TYPE, ServiceMetrics
from compute_horde.transport.served import Server

log = structlog.get_logger(__name__)

_NOT_KEPT = {"Cache-Control": "no-store"}


def metrics_route(metrics: ServiceMetrics, token: SecretStr | None = None) -> HTTPRouteHandler:
    """``GET /metrics``. With a ``token`` it answers only those who send it (``Authorization: Bearer TOKEN``)."""

    @get("/metrics", include_in_schema=False)
    async def show_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        if token is not None and not _allowed(request, token):
            return Response(b"", status_code=401, headers={"WWW-Authenticate": "Bearer"})
        return Response(await metrics.render(), headers={**_NOT_KEPT, "Content-Type": CONTENT_TYPE})

    return show_metrics


def _allowed(request: "Request[Any, Any, Any]", token: SecretStr) -> bool:
    sent = request.headers.get("authorization", "")
    return hmac.compare_digest(sent.encode(), f"Bearer {token.get_secret_value()}".encode())


def health_routes(health: Health) -> list[HTTPRouteHandler]:
    """``GET /health/live`` and ``GET /health/ready``: 200 or 503, and which checks failed."""

    @get("/health/live", include_in_schema=False)
    async def show_live() -> Response[bytes]:
        return _answer(await health.live())

    @get("/health/ready", include_in_schema=False)
    async def show_ready() -> Response[bytes]:
        return _answer(await health.ready())

    return [show_live, show_ready]


def _answer(report: Report) -> Response[bytes]:
    text = json.dumps(report.to_json())
    return Response(
        text.encode(), status_code=report.http_status, media_type="application/json", headers=_NOT_KEPT
    )


def operations_app(health: Health, metrics: ServiceMetrics, token: SecretStr | None = None) -> Litestar:
    """Health and metrics, and nothing else."""
    return Litestar(
        [*health_routes(health), metrics_route(metrics, token)], openapi_config=None, logging_config=None
    )


class Operations:
    """Health and metrics on an address of their own. ``port``: None for no such server, 0 for a free port.

    ``optional``: an address that is taken is logged, not raised; for executors, of which one machine has many.
    """

    def __init__(
        self,
        health: Health,
        metrics: ServiceMetrics,
        *,
        host: str,
        port: int | None,
        token: SecretStr | None = None,
        optional: bool = False,
    ) -> None:
        self._app = operations_app(health, metrics, token)
        self._host, self._wanted, self._optional = host, port, optional
        self._server: Server | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; None while it does not."""
        return self._server.port if self._server else None

    async def start(self) -> None:
        """Return when requests are answered. :raises OSError: the address is taken, and not optional."""
        if self._wanted is None:
            return
        try:
            server = Server(self._app, self._host, self._wanted)
        except OSError as error:
            if not self._optional:
                raise
            log.warning("no health and metrics from this process", error=str(error))
            return
        self._server = server
        await server.start()

    async def stop(self) -> None:
        """Stopping twice, or without a start, is fine."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
