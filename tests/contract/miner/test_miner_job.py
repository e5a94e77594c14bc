"""A job from the validator through the miner to the executor and back (sections 6.5 and 7.1)."""

import uuid
from pathlib import Path

from compute_horde.miner.testing import (
    accepted_receipt,
    finished_receipt,
    initial,
    open_horde,
    request,
    until,
)
from compute_horde.protocol.validator_miner import (
    V0ExecutionDoneRequest,
    V0ExecutorReadyRequest,
    V0JobFinishedRequest,
    V0MachineSpecsRequest,
    V0VolumesReadyRequest,
)


async def test_full_sequence(tmp_path: Path) -> None:
    job = str(uuid.uuid4())
    async with open_horde(tmp_path) as horde:
        validator = await horde.validator()
        await validator.say(initial(job))
        await validator.expect("V0AcceptJobRequest")
        await validator.say(accepted_receipt(job))
        executor = await horde.executor()
        handed = await executor.expect("V0InitialJobRequest")
        assert handed["job_uuid"] == job
        await executor.say(V0ExecutorReadyRequest(job_uuid=job, executor_token="secret"))
        ready = await validator.expect("V0ExecutorReadyRequest")
        assert ready["executor_token"] is None
        await validator.say(request(job))
        whole = await executor.expect("V0JobRequest")
        assert whole["docker_run_cmd"] == ["echo", "hé"]
        await executor.say(V0VolumesReadyRequest(job_uuid=job), V0ExecutionDoneRequest(job_uuid=job))
        await validator.expect("V0VolumesReadyRequest", "V0ExecutionDoneRequest")
        await executor.say(V0MachineSpecsRequest(job_uuid=job, specs={"specs": {"cpu": 2}}))
        await executor.say(
            V0JobFinishedRequest(
                job_uuid=job,
                docker_process_stdout="out",
                docker_process_stderr="",
                upload_results={"a": "etag"},
                exit_status=0,
            )
        )
        specs = await validator.expect("V0MachineSpecsRequest")
        assert specs["specs"] == {"specs": {"cpu": 2}}
        result = await validator.expect("V0JobFinishedRequest")
        assert result["upload_results"] == {"a": "etag"}
        assert result["exit_status"] == 0
        await validator.say(finished_receipt(job))
        (await horde.launched()).end(0)
        await until(lambda: horde.miner.pool.free(horde.launcher.launched[0].executor_class) == 2)
