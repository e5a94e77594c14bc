"""For all tests: one that hangs says what it was waiting for."""

import asyncio
import gc
import io
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[Any],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and "from pytest-timeout" in str(call.excinfo.value):
        report.sections.append(("asyncio's tasks", _tasks()))
    return report


def _tasks() -> str:
    told = io.StringIO()
    for task in [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]:
        if not task.done():
            told.write(f"\n{task.get_name()}: {task.get_coro()}\n")
            task.print_stack(file=told)
    return told.getvalue()
