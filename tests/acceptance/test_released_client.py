"""The released client of the existing network completes its job against our horde."""

import json
import subprocess
from pathlib import Path

from compute_horde.stack.fileserver import FileServer

from .conftest import RunningHorde

SCRIPT = Path(__file__).with_name("released_client_job.py")


def test_the_released_client_runs_gets_and_lists_its_jobs(
    horde: RunningHorde, image: str, files: FileServer, released_client: Path
) -> None:
    order = json.dumps({**horde.info, "image": image, "files_url": files.url})
    done = subprocess.run(
        [released_client, SCRIPT, order], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {
        "status": "completed",
        "stdout": "hello from inline\n12\n",
        "stderr": "oops\n",
        "artifacts": {"/artifacts/sum.txt": "12\n"},
        "uploads": ["/output/sum.txt"],
        "again": "completed",
        "listed": True,
        "missing": "not found",
        "failed": ["failed", "nonzero_return_code"],
    }
    assert files.uploads == {"/sum": b"12\n"}
