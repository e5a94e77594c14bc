"""Settings of one executor."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from compute_horde.configuration import ServiceSettings

MIB = 1024 * 1024
GIB = 1024 * MIB


class ExecutorSettings(ServiceSettings):
    """What a job may use, and which engine runs it. Sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="HORDE_EXECUTOR_", frozen=True, extra="forbid")

    work_dir: Path | None = Field(
        default=None, description="Folders of running jobs; default: a private one in /tmp"
    )
    executor_id: str | None = Field(default=None, description="Marks our containers; default: host and work_dir")

    memory_bytes: int = Field(default=2 * GIB, ge=6 * MIB)
    cpus: float | None = Field(default=None, gt=0, description="Default: all that the engine has")
    pids_limit: int = Field(default=512, ge=1)
    disk_bytes: int = Field(default=10 * GIB, ge=MIB, description="Everything that a job writes, its log apart")
    disk_reserve_bytes: int = Field(default=256 * MIB, ge=0, description="Free space below which a job is stopped")
    log_bytes: int = Field(default=256 * MIB, ge=1024, description="Kept of stdout and of stderr, each")

    download_max_bytes: int = Field(default=2 * GIB, ge=1, description="One download, and one archive unpacked")
    input_zip_entries: int = Field(default=10_000, ge=1)
    output_max_bytes: int = Field(default=2 * GIB, ge=1, description="One uploaded file or archive")
    output_zip_entries: int = Field(default=1000, ge=1)
    allow_private_networks: bool = Field(default=False, description="Let URLs of a job lead into private networks")
    huggingface_token: SecretStr | None = Field(default=None, description="For volumes that bring no token")

    docker_url: str | None = Field(default=None, description="Default: DOCKER_HOST, else a usual socket")
    pull: Literal["missing", "always"] = "missing"
    registry: str | None = Field(default=None, description="Host of the registry that the credentials belong to")
    registry_username: str | None = None
    registry_password: SecretStr | None = None
    runsc: Literal["auto", "require", "off"] = Field(default="auto", description="Run jobs under gVisor")
    no_gpu: bool = Field(default=False, description="Refuse jobs that ask for GPUs")

    operations_host: str = Field(default="127.0.0.1", description="Address of health and metrics")
    operations_port: int | None = Field(
        default=None, ge=0, lt=65536, description="None: nowhere; 0: a free one; taken: one executor less is seen"
    )
    operations_token: SecretStr | None = Field(default=None, description="Asked for at /metrics")

    @property
    def folder(self) -> Path:
        """Where the folders of jobs are made."""
        return self.work_dir or Path(tempfile.gettempdir()) / f"compute-horde-{os.getuid()}"

    @property
    def owner(self) -> str:
        """The label's value by which containers are known as ours."""
        return self.executor_id or f"{socket.gethostname()}:{self.folder.absolute()}"
