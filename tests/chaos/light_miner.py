"""A miner whose executors live in its own process: many short jobs cost no process each.

``python -m tests.chaos.light_miner CONFIG [STARTS IMAGE]``: with ``STARTS``, a fake engine, which has only
``IMAGE``, takes the place of the real one. It writes the token of each container that it starts to this file, one
a line.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from compute_horde.chain.keys import load_hotkey
from compute_horde.chain.static import StaticChain
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.fake import DIGEST, PROGRAMS, FakeContainer, FakeProcess, FakeRuntime
from compute_horde.executor.runtime import ContainerRuntime, ContainerSpec, Image
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.stack.launcher import InProcessLauncher

JOB_SECONDS = 0.7


class WrittenDown(FakeRuntime):
    """A fake engine whose starts outlive its process."""

    def __init__(self, starts: Path, image: str) -> None:
        super().__init__({image: Image(DIGEST, False)}, {"echo": echo_late})
        self._starts = starts

    async def start(self, spec: ContainerSpec, *rest: Any) -> FakeContainer:
        with self._starts.open("a") as file:
            file.write(f"{spec.name.removeprefix('ch-').removesuffix('-job')}\n")
        return await super().start(spec, *rest)


async def echo_late(process: FakeProcess) -> int:
    await asyncio.sleep(JOB_SECONDS)
    return await PROGRAMS["echo"](process)


async def main(config: Path, *fake: str) -> None:
    settings: MinerSettings = MinerSettings.load(config)
    executors = ExecutorSettings()
    runtime: ContainerRuntime = WrittenDown(Path(fake[0]), fake[1]) if fake else DockerRuntime(executors)
    launcher = InProcessLauncher(executors, runtime)
    hotkey = load_hotkey(settings.wallet_path, settings.wallet_name, settings.wallet_hotkey)
    assert settings.chain_file is not None
    miner = MinerService(settings, StaticChain(settings.chain_file), launcher, hotkey=hotkey)
    await miner.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
