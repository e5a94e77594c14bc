"""Count the words of a text on a machine that is not yours.

horde up --json > horde.json &
python examples/count_words.py horde.json busybox
"""

import asyncio
import json
import sys
from pathlib import Path

from bittensor_wallet import Wallet

from compute_horde_sdk.v1 import ComputeHordeClient, InlineInputVolume

TEXT = b"it was the best of times, it was the worst of times\n"


async def main(horde: dict[str, str], image: str) -> None:
    hotkey = Wallet(horde["wallet_name"], horde["wallet_hotkey"], horde["wallet_path"]).hotkey
    async with ComputeHordeClient(
        hotkey, horde["validator_hotkey"], facilitator_url=horde["facilitator_url"]
    ) as client:
        job = await client.create_job(
            "always_on.test",
            "examples",
            image,
            args=["sh", "-c", "wc -w < /volume/in/text.txt | tee /artifacts/count.txt"],
            artifacts_dir="/artifacts",
            input_volumes={"/volume/in": InlineInputVolume.from_file_contents("text.txt", TEXT)},
        )
        await job.wait(timeout=60)
    if job.error or job.result is None:
        raise SystemExit(f"the job ended as {job.status.value}: {job.error}")
    print("words:", job.result.stdout.strip())
    print("artifact:", job.result.artifacts["/artifacts/count.txt"].decode().strip())


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]))
