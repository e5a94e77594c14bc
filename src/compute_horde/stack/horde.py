"""The whole horde: facilitator, miner, trusted miner, executors and validator, on loopback, in this process."""

import asyncio
import contextlib
import os
from pathlib import Path

from compute_horde.chain.port import MinerEndpoint
from compute_horde.chain.static import StaticChain
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.facilitator.service import FacilitatorService
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.stack.home import HOTKEY_NAME, Announcement, Home
from compute_horde.stack.launcher import InProcessLauncher
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings

HOST = "127.0.0.1"
CONNECT_SECONDS = 30
RECONNECT_SECONDS = 2
"""Executors live in this process: one that is not back at once will not come."""
USER, VALIDATOR, MINER = "user", "validator", "miner"


class Horde:
    """Start with :meth:`start`, stop with :meth:`stop`; use as an async context manager for both.

    ``port``: the facilitator's, 0 for a free one. ``executors``: how many of each class. ``end_jobs``: what is
    under way is ended at the stop; otherwise it is left to the next start on the same folder.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int,
        executors: dict[ExecutorClass, int],
        executor_settings: ExecutorSettings,
        end_jobs: bool = False,
    ) -> None:
        self.home = Home(home)
        self._port, self._executors, self._executor_settings = port, executors, executor_settings
        self._end_jobs = end_jobs
        self._stack = contextlib.AsyncExitStack()
        self.announcement: Announcement | None = None

    async def start(self) -> Announcement:
        """Everything up and connected.

        :raises HomeError: the folder is in use or unusable.
        :raises OSError: the port is taken.
        :raises TimeoutError: the parts did not find each other.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> Announcement:
        self.home.hold()
        self._stack.callback(self.home.release)
        user, key = self.home.key(USER), self.home.key(VALIDATOR)
        chain = self.home.open_chain(user.ss58_address, key.ss58_address)
        facilitator = FacilitatorService(self._facilitator_settings(), chain)
        await self._run(facilitator)
        await self._start_miner(chain, trusted_for=None)
        trusted = await self._start_miner(chain, trusted_for=key.ss58_address)
        validator = ValidatorService(self._validator_settings(facilitator.url, trusted.port), key, chain)
        await self._run(validator)
        await asyncio.wait_for(validator.connected.wait(), CONNECT_SECONDS)
        self.announcement = Announcement(
            facilitator_url=facilitator.url,
            validator_hotkey=key.ss58_address,
            wallet_path=str(self.home.wallets),
            wallet_name=USER,
            wallet_hotkey=HOTKEY_NAME,
            pid=os.getpid(),
        )
        self.home.announce(self.announcement)
        return self.announcement

    async def stop(self) -> None:
        """Stop everything, newest first; stopping twice is fine."""
        await self._stack.aclose()

    async def __aenter__(self) -> "Horde":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _run(self, service: FacilitatorService | MinerService | ValidatorService) -> None:
        if isinstance(service, MinerService):
            self._stack.push_async_callback(service.stop, end_jobs=self._end_jobs)
        else:
            self._stack.push_async_callback(service.stop)
        await service.start()

    async def _start_miner(self, chain: StaticChain, *, trusted_for: str | None) -> MinerService:
        name = "trusted-miner" if trusted_for else MINER
        hotkey = None if trusted_for else self.home.key(MINER)
        # each miner knows its own containers, and never takes the other's for leftovers
        ours = self._executor_settings.model_copy(update={"executor_id": f"{self.home.path}:{name}"})
        launcher = InProcessLauncher(ours, DockerRuntime(ours))
        settings = MinerSettings(
            host=HOST,
            port=0,
            database_url=self.home.database_url(name),
            executors=self._executors,
            executor_reconnect_limit=RECONNECT_SECONDS,
            trusted_for=trusted_for,
        )
        service = MinerService(settings, chain, launcher, hotkey=hotkey)
        self._stack.push_async_callback(launcher.close, kill=self._end_jobs)
        await self._run(service)
        if hotkey is not None:
            endpoint = MinerEndpoint(hotkey=hotkey.ss58_address, address=HOST, port=service.port)
            self.home.place_miner(chain, endpoint)
        return service

    def _facilitator_settings(self) -> FacilitatorSettings:
        return FacilitatorSettings(host=HOST, port=self._port, database_url=self.home.database_url("facilitator"))

    def _validator_settings(self, facilitator_url: str, trusted_port: int) -> ValidatorSettings:
        return ValidatorSettings(
            facilitator_url=facilitator_url.replace("http", "ws", 1).rstrip("/") + "/ws/v0/",
            database_url=self.home.database_url("validator"),
            trusted_miner_address=HOST,
            trusted_miner_port=trusted_port,
        )
