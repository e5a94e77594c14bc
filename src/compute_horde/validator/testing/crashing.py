"""What a killed validator leaves behind, in tests that run several in one process."""

from compute_horde.validator.service import ValidatorService


async def crash(validator: ValidatorService) -> None:
    """End a validator as SIGKILL does: nothing is written any more, and whoever looks finds it dead."""
    await validator._owners.close()
    for task in [*validator._tasks, *validator._dispatcher._left]:
        task.cancel()
    validator._outbox._acknowledged.clear()
    await validator.stop()
