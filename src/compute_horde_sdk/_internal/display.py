"""How a notebook shows a job. Everything that others wrote is escaped."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the job imports this
    from compute_horde_sdk._internal.job import ComputeHordeJob
    from compute_horde_sdk._internal.models import QueuePlace

SHOWN_CHARS = 500


def job_html(job: "ComputeHordeJob") -> str:
    """A small table."""
    rows = {
        "job": job.uuid,
        "status": job.status.value,
        "class": job.executor_class,
        "image": job.docker_image,
        "namespace": job.job_namespace,
        "queue": job.job_queue,
        "waits": _place(job.queue) if job.queue else None,
        "attempt": f"{job.attempt} of {job.attempts or '?'}" if job.attempt > 1 else None,
        "created": f"{job.created_at:%Y-%m-%d %H:%M:%S %Z}",
        "error": _error(job),
        "hint": job.error.hint if job.error else None,
        "exit code": str(job.result.exit_code) if job.result and job.result.exit_code is not None else None,
        "stdout": _tail(job.result.stdout) if job.result else None,
        "stderr": _tail(job.result.stderr) if job.result else None,
        "artifacts": _tail(", ".join(job.result.artifacts)) if job.result else None,
    }
    cells = "".join(f"<tr><th>{name}</th><td>{_cell(text)}</td></tr>" for name, text in rows.items() if text)
    return f"<table>{cells}</table>"


def _place(place: "QueuePlace") -> str:
    where = f"{place.position} of {place.length or '?'}" if place.position else "place not known"
    return where if place.starts_in is None else f"{where}, starts in about {place.starts_in:.0f} s"


def _error(job: "ComputeHordeJob") -> str | None:
    return f"{job.error.code}: {job.error.message}" if job.error else None


def _tail(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else "..." + text[-SHOWN_CHARS:]


def _cell(text: str) -> str:
    return f'<pre style="margin:0">{html.escape(text)}</pre>'
