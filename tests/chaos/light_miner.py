"""A miner whose executors live in its own process: many short jobs cost no process each."""

import asyncio
import sys
from pathlib import Path

from compute_horde.chain.keys import load_hotkey
from compute_horde.chain.static import StaticChain
from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.miner.service import MinerService
from compute_horde.miner.settings import MinerSettings
from compute_horde.stack.launcher import InProcessLauncher


async def main(config: Path) -> None:
    settings: MinerSettings = MinerSettings.load(config)
    executors = ExecutorSettings()
    launcher = InProcessLauncher(executors, DockerRuntime(executors))
    hotkey = load_hotkey(settings.wallet_path, settings.wallet_name, settings.wallet_hotkey)
    assert settings.chain_file is not None
    miner = MinerService(settings, StaticChain(settings.chain_file), launcher, hotkey=hotkey)
    await miner.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
