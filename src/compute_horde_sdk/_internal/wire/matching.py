"""Whether a job in the list is the one that was sent: the existing facilitator's echo, with its quirks. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compute_horde.protocol.sdk_facilitator import Job

_ECHOED = (
    "target_validator_hotkey",
    "executor_class",
    "docker_image",
    "job_namespace",
    "args",
    "env",
    "use_gpu",
    "artifacts_dir",
    "on_trusted_miner",
    "download_time_limit",
    "execution_time_limit",
    "streaming_start_time_limit",
    "upload_time_limit",
    "volumes",
    "uploads",
)


@dataclass(frozen=True)
class Sent:
    """A creation. ``since``: by the facilitator's clock, no later than the moment it was sent."""

    body: Mapping[str, Any]
    content: bytes
    since: dt.datetime

    @property
    def queue(self) -> str:
        return str(self.body.get("tag", ""))

    def fits(self, job: Job) -> bool:
        """Whether this job may be the one that the creation made."""
        certificate = (self.body.get("streaming_details") or {}).get("public_key", "")
        return (
            job.created_at >= self.since
            and job.tag == self.queue
            and _same(certificate, job.streaming_client_cert)
            and all(_same(self.body[name], getattr(job, name)) for name in _ECHOED)
        )


def _same(sent: Any, echoed: Any) -> bool:
    """Texts are trimmed over there, and objects may come back with more members."""
    if isinstance(sent, str) and isinstance(echoed, str):
        return sent.strip() == echoed.strip()
    if isinstance(sent, Mapping) and isinstance(echoed, Mapping):
        return all(name in echoed and _same(value, echoed[name]) for name, value in sent.items())
    if isinstance(sent, list) and isinstance(echoed, list):
        return len(sent) == len(echoed) and all(map(_same, sent, echoed))
    return bool(sent == echoed) or not (sent or echoed)
