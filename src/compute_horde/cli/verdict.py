"""What the trusted miner says of a job, at the terminal."""

from compute_horde.cli.outcome import MISMATCH
from compute_horde.cli.terminal import note, printable
from compute_horde_sdk.v1 import CrossValidationReport, CrossValidationState

MAX_SHOWN = 20


def with_verdict(code: int, report: CrossValidationReport | None) -> int:
    """The exit code: a contradicted job never counts as done."""
    return MISMATCH if report is not None and report.state is CrossValidationState.MISMATCH else code


def show_verdict(report: CrossValidationReport | None) -> None:
    """The verdict, and where the results differ."""
    if report is None:
        return
    note(f"cross-validation: {report.state.value}: {printable(report.reason)}")
    differences = report.evidence.differences if report.evidence else ()
    for one in differences[:MAX_SHOWN]:
        sides = f"{one.own or 'nothing'}, on the trusted miner {one.trusted or 'nothing'}"
        note(f"  {printable(f'{one.what} {one.path}'.strip())}: {printable(sides)}")
    if len(differences) > MAX_SHOWN:
        note(f"  and {len(differences) - MAX_SHOWN} more")
    if report.reported:
        note("  reported to the validator")
    if report.report_error is not None:
        note(f"  could not be reported: {printable(report.report_error.message)}")
