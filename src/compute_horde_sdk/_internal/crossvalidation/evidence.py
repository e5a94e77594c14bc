"""What the two runs left, in hashes: what a verdict rests on, and what is reported."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from compute_horde_sdk._internal.crossvalidation.comparing import sha
from compute_horde_sdk._internal.crossvalidation.comparison import Difference
from compute_horde_sdk._internal.models import ComputeHordeJobResult, ComputeHordeJobStatus

if TYPE_CHECKING:  # only types
    from pydantic import JsonValue

    Json = dict[str, JsonValue]

MAX_REPORT_BYTES = 64 * 1024
MAX_REPORTED = 100
MAX_TEXT_CHARS = 300


class FileHash(NamedTuple):
    """``sha256``: in hex. ``size``: bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class JobEvidence:
    """One run.

    Streams and artifacts were hashed here, from what arrived. ``image_digest`` and ``outputs`` (SHA-256 in hex by
    path below ``/output/``) are what the executor said of itself; None where it said nothing. A miner that did not
    run the job does not know the right hashes. But one that did could still upload other bytes than it hashed:
    whoever fetches the uploads can check them against the hashes.
    """

    job_uuid: str
    status: ComputeHordeJobStatus
    exit_code: int | None
    image_digest: str | None
    stdout: FileHash
    stderr: FileHash
    artifacts: Mapping[str, FileHash]
    outputs: Mapping[str, str] | None


@dataclass(frozen=True)
class CrossValidationEvidence:
    """Both runs, and where they disagree. ``comparator``: what decided; empty when none was asked."""

    own: JobEvidence
    trusted: JobEvidence
    comparator: str = ""
    differences: tuple[Difference, ...] = ()
    not_compared: tuple[str, ...] = ()

    def to_json(self, max_bytes: int | None = None) -> "Json":
        """As JSON can hold it. Characters that cannot be printed are escaped: the paths come from strangers.

        :param max_bytes: of the JSON text; the first 100 differences at most, fewer where that is too much, and
            the files that differ before the others. The counts are always there. None leaves nothing out.
        """
        if max_bytes is None:
            return self._json(None)
        limit = MAX_REPORTED
        while len(json.dumps(shown := self._json(limit))) > max_bytes and limit:
            limit //= 2
        return shown

    def _json(self, limit: int | None) -> "Json":
        first = dict.fromkeys(difference.path for difference in self.differences)
        return {
            "comparator": _text(self.comparator, limit),
            "difference_count": len(self.differences),
            "differences": [_difference(one, limit) for one in islice(self.differences, limit)],
            "not_compared": [_text(one, limit) for one in islice(self.not_compared, limit)],
            "own": _job(self.own, first, limit),
            "trusted": _job(self.trusted, first, limit),
        }


def evidence_of(job_uuid: str, status: ComputeHordeJobStatus, result: ComputeHordeJobResult) -> JobEvidence:
    """Hash what one run left."""
    return JobEvidence(
        job_uuid=job_uuid,
        status=status,
        exit_code=result.exit_code,
        image_digest=result.image_digest,
        stdout=_hash(result.stdout.encode("utf-8", "surrogatepass")),
        stderr=_hash(result.stderr.encode("utf-8", "surrogatepass")),
        artifacts={path: _hash(content) for path, content in result.artifacts.items()},
        outputs=None if result.output_hashes is None else dict(result.output_hashes),
    )


def _hash(content: bytes) -> FileHash:
    return FileHash(sha(content), len(content))


def _job(job: JobEvidence, first: Iterable[str], limit: int | None) -> "Json":
    outputs = job.outputs
    return {
        "job_uuid": job.job_uuid,
        "status": job.status.value,
        "exit_code": job.exit_code,
        "image_digest": None if job.image_digest is None else _text(job.image_digest, limit),
        "stdout": _file(job.stdout),
        "stderr": _file(job.stderr),
        "artifact_count": len(job.artifacts),
        "artifacts": {
            _text(path, limit): _file(job.artifacts[path]) for path in _chosen(job.artifacts, first, limit)
        },
        "output_count": None if outputs is None else len(outputs),
        "outputs": None
        if outputs is None
        else {_text(path, limit): _text(outputs[path], limit) for path in _chosen(outputs, first, limit)},
    }


def _chosen(paths: Mapping[str, object], first: Iterable[str], limit: int | None) -> list[str]:
    ordered = dict.fromkeys([*(path for path in first if path in paths), *paths])
    return list(islice(ordered, limit))


def _file(found: FileHash) -> "Json":
    return {"sha256": found.sha256, "size": found.size}


def _difference(found: Difference, limit: int | None) -> "Json":
    texts = {"what": found.what, "path": found.path, "own": found.own, "trusted": found.trusted}
    return {name: None if text is None else _text(text, limit) for name, text in texts.items()}


def _text(text: str, limit: int | None) -> str:
    shown = text if limit is None else text[:MAX_TEXT_CHARS]
    return shown if shown.isprintable() else "".join(map(_printable, shown))


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
