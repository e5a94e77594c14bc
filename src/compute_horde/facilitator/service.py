"""The facilitator as a running service."""

import time
from collections.abc import Callable

from compute_horde.chain import keys
from compute_horde.chain.port import Chain
from compute_horde.facilitator.app import create_app
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.protocol.signing import Verifier
from compute_horde.telemetry.facilitator import FacilitatorMetrics
from compute_horde.telemetry.server import Operations
from compute_horde.transport.served import Server


class FacilitatorService:
    """Starts the parts, then the server; stops them the other way round."""

    def __init__(
        self,
        settings: FacilitatorSettings,
        chain: Chain,
        *,
        verifier: Verifier = keys.verify,
        now: Callable[[], float] = time.time,
        metrics: FacilitatorMetrics | None = None,
    ) -> None:
        self.facilitator = Facilitator(settings, chain, verifier=verifier, now=now, metrics=metrics)
        self.operations = Operations(
            self.facilitator.health,
            self.facilitator.metrics,
            host=settings.operations_host,
            port=settings.operations_port,
            token=settings.operations_token,
        )
        self._settings = settings
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where it listens, once started: ``http://127.0.0.1:PORT/``."""
        if self._server is None:
            raise RuntimeError("the facilitator is not started")
        return _url(self._server)

    async def start(self) -> None:
        """Return when requests are answered. :raises OSError: the address is taken."""
        server = Server(create_app(self.facilitator), self._settings.host, self._settings.port)
        self.facilitator.registry.replica_url = self._settings.replica_url or _url(server)
        try:
            await self.facilitator.open()
            await self.operations.start()
            await server.start()
        except BaseException:
            await self.operations.stop()
            await self.facilitator.close()
            await server.stop()
            raise
        self._server = server

    async def stop(self) -> None:
        """End streams and connections, close the address, leave the database. Stopping twice is fine."""
        if self._server is None:
            return
        await self.facilitator.hang_up()
        await self._server.stop()
        await self.operations.stop()
        await self.facilitator.close()
        self._server = None


def _url(server: Server) -> str:
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{host}:{server.port}/"
