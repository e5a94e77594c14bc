"""What a job is to do: the arguments of ``create_job`` in one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from compute_horde.protocol.enums import ExecutorClass
from compute_horde_sdk._internal.specs.volumes import InputVolume, OutputVolume

if TYPE_CHECKING:  # only a type
    from compute_horde_sdk._internal.crossvalidation.plan import CrossValidation

DOWNLOAD_LIMIT_S = 60
EXECUTION_LIMIT_S = 300
UPLOAD_LIMIT_S = 60
STREAMING_START_LIMIT_S = 5


@dataclass(repr=False)
class ComputeHordeJobSpec:
    """A job: the image, what goes in, what comes out, and how long each stage may take.

    * ``executor_class``: what kind of machine, such as ``ExecutorClass.always_on__gpu_24gb``
    * ``job_namespace``: whom the job is for, such as ``SN12.0``; at most 100 characters
    * ``docker_image``: the image's reference
    * ``download_time_limit_sec``, ``execution_time_limit_sec``, ``upload_time_limit_sec``: whole seconds for
      fetching the inputs, for the container, for sending the outputs
    * ``args``, ``env``: the container's arguments, one text each, and its environment
    * ``artifacts_dir``: absolute path in the container; the files directly in it come back in the result
    * ``input_volumes``: by mount path below ``/volume/``; a ``pathlib.Path`` is a local file or folder, read when
      the job is created; ``output_volumes``: by path below ``/output/``
    * ``streaming``: the job serves a connection; ``streaming_start_time_limit_sec``: seconds for it to come up
    * ``run_cross_validation``: repeat the job on the trusted miner and compare
    * ``trusted_output_volumes``: the repetition's uploads; none when omitted
    * ``cross_validation``: how often and how it is compared; the client's when None
    * ``queue_time_limit_sec``: whole seconds that it may wait for an executor in all, up to a week; 0 ends it at
      once where none is free
    * ``attempts``: how often the horde tries it in all while it fails through no doing of its user, 1 to 10
    * ``retry_backoff_sec``: seconds before the second attempt, up to 3600; they double with each further one
    * ``priority``: -100 to 100; jobs with a higher one are taken first

    The last four are left to the validator where they are not set. The existing network ends a job at once where
    nothing is free, and tries it once; asking it for more raises ComputeHordeUnsupportedError.

    Checked when the job is created.
    """

    executor_class: ExecutorClass | str
    job_namespace: str | None
    docker_image: str
    download_time_limit_sec: int = DOWNLOAD_LIMIT_S
    execution_time_limit_sec: int = EXECUTION_LIMIT_S
    upload_time_limit_sec: int = UPLOAD_LIMIT_S
    args: Sequence[str] = field(default_factory=list)
    env: Mapping[str, str] = field(default_factory=dict)
    artifacts_dir: str | None = None
    input_volumes: Mapping[str, InputVolume | Path] | None = None
    output_volumes: Mapping[str, OutputVolume] | None = None
    streaming: bool = False
    streaming_start_time_limit_sec: int = STREAMING_START_LIMIT_S
    run_cross_validation: bool = False
    trusted_output_volumes: Mapping[str, OutputVolume] | None = None
    cross_validation: "CrossValidation | None" = None
    queue_time_limit_sec: int | None = field(default=None, kw_only=True)
    attempts: int | None = field(default=None, kw_only=True)
    retry_backoff_sec: float | None = field(default=None, kw_only=True)
    priority: int = field(default=0, kw_only=True)

    def __repr__(self) -> str:
        """Without the values of ``env``, which may be secrets."""
        shown = []
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "env" and isinstance(value, Mapping):
                shown.append("env={" + ", ".join(f"{name!r}: ..." for name in value) + "}")
            elif value is not None:
                shown.append(f"{one.name}={value!r}")
        return f"ComputeHordeJobSpec({', '.join(shown)})"
