"""A facilitator, a validator, miners, executors: the real classes, on the model's wires, disks and time."""

import asyncio
import itertools
import json
import shutil
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tests.unit.model.machine import IMAGE, Machine
from tests.unit.model.processes import Process
from tests.unit.model.virtual import VirtualLoop
from tests.unit.model.wires import Network, Server, Wire

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import Directory, MinerEndpoint
from compute_horde.chain.static import FixedChain
from compute_horde.facilitator.app import create_app
from compute_horde.facilitator.facilitator import Facilitator
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.miner.timers import Timers
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.protocol.extensions import HTTP_EXTENSIONS, announcement
from compute_horde.protocol.signing import SignatureScope, SignedFields, sign_payload
from compute_horde.storage.errors import StorageError
from compute_horde.transport.channel import Channel
from compute_horde.validator.service import ValidatorService
from compute_horde.validator.settings import ValidatorSettings

T = TypeVar("T")
USER, VALIDATOR = throwaway_hotkey("//User"), throwaway_hotkey("//Validator")
MINERS = {name: throwaway_hotkey(f"//{name}") for name in ("m1", "m2")}
TEST = ExecutorClass.always_on__test
FACILITATOR_URL = "ws://facilitator/ws/v0/"
HTTP_SECONDS = 20.0


class World:
    """``folder`` has the databases; services are started by :meth:`start` and may be killed at any moment."""

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.loop, self.folder, self.network = loop, folder, Network(loop)
        self.chain = FixedChain(
            Directory(
                validators=frozenset({VALIDATOR.ss58_address}),
                users=frozenset({USER.ss58_address}),
                signers=frozenset({USER.ss58_address}),
                miners=tuple(
                    MinerEndpoint(hotkey=key.ss58_address, address=name, port=8000) for name, key in MINERS.items()
                ),
            )
        )
        self.machines = {name: Machine(loop, self.network, folder / f"{name}-jobs") for name in MINERS}
        self.processes: dict[str, Process] = {}
        self.full: set[str] = set()
        self.token = ""
        self._app: Any = None
        self._moments = itertools.count()

    @property
    def services(self) -> tuple[str, ...]:
        return ("facilitator", "validator", *MINERS)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Until it is done, whatever else happens meanwhile."""
        return self.loop.run_until_complete(work)

    def database(self, service: str) -> Path:
        return self.folder / f"{service}.db"

    def is_alive(self, service: str) -> bool:
        return service in self.processes and self.processes[service].alive

    async def start(self, service: str) -> bool:
        """Start it on what its predecessor has left; whether it came up."""
        file = self.database(service)
        process = self.processes[service] = Process(service, self.loop, file.with_name(f"{file.name}.locks"))
        process.full = service in self.full
        opening = {"facilitator": self._facilitator, "validator": self._validator}.get(service)
        work = opening(process) if opening else self._miner(process, service)
        try:
            await process.spawn(work)
        except (StorageError, asyncio.CancelledError):
            await self.kill(service)
        return process.alive

    async def start_all(self) -> None:
        for service in self.services:
            if not self.is_alive(service):
                assert await self.start(service), service

    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def fill_disk(self, service: str, full: bool) -> None:
        """Also for those who are started later."""
        (self.full.add if full else self.full.discard)(service)
        self.processes[service].fill_disk(full)

    async def cut(self, wire: Wire, near_knows: bool, far_knows: bool) -> None:
        wire.cut(near_knows=near_knows, far_knows=far_knows)

    def address(self, service: str) -> str:
        return FACILITATOR_URL if service in ("facilitator", "validator") else f"ws://{service}:8000/"

    async def heal(self) -> None:
        """Everything works again, and stays so."""
        for service in self.services:
            self.fill_disk(service, False)
        for machine in self.machines.values():
            machine.unfit(False)
        self.network.heal()
        await self.start_all()

    async def kill(self, service: str) -> None:
        """SIGKILL."""
        process = self.processes[service]
        killing = asyncio.ensure_future(process.kill())
        self.network.hang_up(process)
        await killing

    async def kill_executor(self, process: Process) -> None:
        killing = asyncio.ensure_future(process.kill())
        self.network.hang_up(process)
        await killing

    async def wipe_executor(self, process: Process) -> None:
        """Its machine is lost, with all that was on it, and replaced by an empty one."""
        machine = next(machine for machine in self.machines.values() if process in machine.executors)
        await self.kill_executor(process)
        await machine.wipe(process)

    async def close(self) -> None:
        """The end of the world: nothing is left of any process."""
        for machine in self.machines.values():
            for process in machine.executors:
                await self.kill_executor(process)
        for process in self.processes.values():
            await process.kill()
        for machine in self.machines.values():
            await machine.engine.process.kill()

    async def _facilitator(self, process: Process) -> None:
        settings = FacilitatorSettings(database_url=f"sqlite:///{self.database('facilitator')}", silence_margin=60)
        facilitator = Facilitator(settings, self.chain, now=self.loop.wall, clock=self.loop.wall)
        await facilitator.open()

        async def accept(_url: str, headers: Mapping[str, str], channel: Channel) -> None:
            await facilitator.serve_validator(channel, headers)

        self.network.listen(FACILITATOR_URL, Server(process, accept, announcement()))
        self._app = create_app(facilitator)

    async def _validator(self, process: Process) -> None:
        settings = ValidatorSettings(
            facilitator_url=FACILITATOR_URL,
            database_url=f"sqlite:///{self.database('validator')}",
            executor_startup_limit=20,
        )
        dialer = self.network.dialer(process, "validator")
        await ValidatorService(settings, VALIDATOR, self.chain, dialer=dialer).start()

    async def _miner(self, process: Process, name: str) -> None:
        settings = MinerSettings(
            host=name,
            port=8000,
            database_url=f"sqlite:///{self.database(name)}",
            executors={TEST: 1},
            executor_startup_limit=20,
        )
        miner = MinerService(
            settings,
            self.chain,
            self.machines[name],
            hotkey=MINERS[name],
            clock=self.loop.wall,
            timers=lambda: Timers(self.loop.elapsed),
        )
        await miner.open()

        async def accept(url: str, _headers: Mapping[str, str], channel: Channel) -> None:
            door = miner.executors if "/executor_interface/" in url else miner.validators
            await door.serve(channel, url.rsplit("/", 1)[1])

        self.network.listen(f"ws://{name}:8000/", Server(process, accept, announcement()))

    async def http(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """A client's request; None: the facilitator died or took too long; nobody knows what became of it."""
        process = self.processes["facilitator"]
        if not process.alive:
            return None
        asking = process.spawn(self._http(method, path, options))
        await asyncio.wait({asking}, timeout=HTTP_SECONDS)
        if not asking.done():
            asking.cancel()
            await asyncio.wait({asking})
        return None if asking.cancelled() else asking.result()

    async def _http(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        headers = {**announcement(HTTP_EXTENSIONS), **options.get("headers", {})}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        async with httpx.AsyncClient(transport=transport, base_url="http://facilitator") as client:
            return await client.request(method, path, **{**options, "headers": headers})

    async def login(self) -> None:
        nonce = _answer(await self.http("GET", "/auth/nonce"))["nonce"]
        body = {"hotkey": USER.ss58_address, "signature": USER.sign(nonce.encode()).hex(), "nonce": nonce}
        self.token = _answer(await self.http("POST", "/auth/login", json=body))["token"]

    async def create(self, command: list[str], **wishes: Any) -> str | None:
        """A job's UUID, if its creation was answered with 201."""
        body = {
            "target_validator_hotkey": VALIDATOR.ss58_address,
            "executor_class": TEST.value,
            "docker_image": IMAGE,
            "args": command,
            "env": {},
            "use_gpu": False,
            "artifacts_dir": None,
            "on_trusted_miner": False,
            "download_time_limit": 5,
            "execution_time_limit": 10,
            "streaming_start_time_limit": 0,
            "upload_time_limit": 5,
            **wishes,
        }
        text = SignedFields.from_body(body).payload()
        moment = int(self.loop.wall() * 1e9) + next(self._moments)  # no two jobs have the same signature
        signed = sign_payload(USER, text, SignatureScope.SIGNED_FIELDS, moment)
        answer = await self.http("POST", "/api/v1/job-docker/", json=body, headers=signed.to_headers())
        if answer is None or answer.status_code == 503:
            return None
        if answer.status_code == 400 and "Could not select Validator" in answer.text:
            return None
        assert answer.status_code == 201, answer.text
        return str(answer.json()["uuid"])

    async def cancel(self, uuid: str) -> None:
        await self.http("POST", f"/api/v1/jobs/{uuid}/cancel/")

    async def shown(self, uuid: str) -> dict[str, Any]:
        """The job as its user sees it."""
        return _answer(await self.http("GET", f"/api/v1/jobs/{uuid}/"))


def _answer(response: httpx.Response | None) -> dict[str, Any]:
    assert response is not None
    assert response.status_code < 300, response.text
    found: dict[str, Any] = json.loads(response.text)
    return found


def copy_databases(template: Path, folder: Path) -> None:
    """Begin with databases that were migrated before: that takes most of the time of a start."""
    for file in template.glob("*.db"):
        shutil.copy(file, folder / file.name)
