"""What a remote party says, at the terminal, and what the shell gets to know."""

import io
from typing import Any

import pytest

from compute_horde.cli.live import Output, beside
from compute_horde.cli.outcome import exit_code, first_failure
from compute_horde.cli.terminal import printable, write_output
from compute_horde.cli.verdict import MAX_SHOWN, show_verdict, with_verdict
from compute_horde_sdk._internal.crossvalidation.comparison import Difference
from compute_horde_sdk._internal.crossvalidation.evidence import CrossValidationEvidence, evidence_of
from compute_horde_sdk._internal.models import ComputeHordeJobResult, ComputeHordeJobStatus
from compute_horde_sdk.v1 import (
    ComputeHordeAuthenticationError,
    ComputeHordeConnectionError,
    ComputeHordeError,
    ComputeHordeNotFoundError,
    ComputeHordeResponseError,
    ComputeHordeValidationError,
    CrossValidationReport,
    CrossValidationState,
)

from .conftest import Served, failed, printed


def test_a_name_cannot_forge_lines_or_drive_the_terminal() -> None:
    assert printable("/artifacts/a\nhint: b\x1b[31m") == "/artifacts/a\\nhint: b\\x1b[31m"
    assert printable("/artifacts/größe.txt") == "/artifacts/größe.txt"


class Screen(io.StringIO):
    encoding = "utf-8"

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def test_a_terminal_gets_colours_and_nothing_that_drives_it() -> None:
    screen = Screen(tty=True)
    write_output(screen, "a\tb\r\n\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J \x9b \u202e größe\n")
    assert screen.getvalue() == ("a\tb\r\n\x1b[31mred\x1b[0m \\x1b]0;title\\x07 \\x1b[2J \\x9b \\u202e größe\n")


def test_a_file_gets_the_output_as_it_is() -> None:
    file = Screen(tty=False)
    write_output(file, "\x1b[2J\x00\udcff")
    assert file.getvalue() == "\x1b[2J\x00\\udcff"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ComputeHordeValidationError("x"), 2),
        (ComputeHordeAuthenticationError("x"), 77),
        (ComputeHordeConnectionError("x"), 69),
        (ComputeHordeResponseError("x"), 1),
        (ComputeHordeResponseError("x", code="facilitator_failed", retryable=True), 69),
        (ComputeHordeAuthenticationError("x", code="signature_refused"), 77),
        (ComputeHordeNotFoundError("x", code="gone"), 66),
        (ComputeHordeConnectionError("x", code="creation_unknown"), 69),
        (ComputeHordeError("x", code="validation_failed"), 2),
    ],
)
def test_codes_of_errors(error: ComputeHordeError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("status", "metadata", "code"),
    [
        ("completed", printed(), 0),
        ("completed", printed(timed_out=True), 124),
        ("rejected", {}, 75),
        ("cancelled", {}, 79),
        ("horde_failed", {}, 69),
        ("failed", {}, 65),
        ("failed", failed(256), 1),
        (
            "failed",
            {"job_failure_details": {"reason": "timeout", "stage": "execution", "message": "late"}},
            124,
        ),
    ],
)
async def test_codes_of_jobs(fake: Served, status: str, metadata: dict[str, Any], code: int) -> None:
    async with fake.client() as client:
        job = await client.create_job("always_on.test", "SN0", "busybox")
        fake.advance(job.uuid, status, metadata)
        await job.wait()
    assert exit_code(job) == code


def test_several_jobs_have_the_code_of_the_first_failure() -> None:
    assert first_failure([0, 7, 65]) == 7
    assert first_failure([]) == 0


def evidence(count: int) -> CrossValidationEvidence:
    one = evidence_of("uuid", ComputeHordeJobStatus.COMPLETED, ComputeHordeJobResult())
    return CrossValidationEvidence(one, one, "", tuple(Difference("artifact", f"/a\n{n}") for n in range(count)))


def test_a_verdict_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(None)
    assert capsys.readouterr().err == ""
    report = CrossValidationReport(
        CrossValidationState.MISMATCH,
        reason="they differ",
        evidence=evidence(MAX_SHOWN + 2),
        report_error=ComputeHordeError("away"),
    )
    show_verdict(report)
    says = capsys.readouterr().err
    assert "  artifact /a\\n0: nothing, on the trusted miner nothing\n" in says
    assert "  and 2 more\n" in says
    assert "could not be reported: away" in says
    assert (with_verdict(0, report), with_verdict(7, None)) == (76, 7)
    assert with_verdict(7, CrossValidationReport(CrossValidationState.INCONCLUSIVE)) == 7


async def test_what_was_not_shown_live_comes_from_the_result(
    fake: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fake.client() as client:
        job = await client.create_job("always_on.test", "SN0", "busybox")
        fake.print(job.uuid, "stdout", "one\n")
        output = Output()
        await output.show_all(job, follow=False)
        output._whole = False  # as when the connection was lost here
        fake.advance(job.uuid, "completed", printed("one\ntwo\n", "oops\n"))
        await beside(output.show_rest(job), job.wait())
        assert job.result is not None
        await output.show_rest(job)
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
