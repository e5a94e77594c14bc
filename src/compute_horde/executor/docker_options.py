"""The sandbox as the Docker Engine is told of it."""

from typing import Any

from compute_horde.executor.runtime import ContainerSpec, EngineFacts
from compute_horde.executor.settings import MIB, ExecutorSettings

OWNER_LABEL = "compute-horde.executor"
TOKEN_LABEL = "compute-horde.token"  # noqa: S105 - a label's name
READ_ONLY_LABEL = "compute-horde.read-only-root"
LOG_DRIVERS = ("local", "json-file")
LOG_FILES = 2
"""Of ``log_bytes`` each; when both are full, the older is dropped."""


def container_config(spec: ContainerSpec, settings: ExecutorSettings, facts: EngineFacts) -> dict[str, Any]:
    """The body of the engine's ``POST /containers/create``."""
    config: dict[str, Any] = {
        "Image": spec.image.id,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": {OWNER_LABEL: settings.owner, TOKEN_LABEL: spec.token},
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host_config(spec, settings, facts),
    }
    if spec.command:
        config["Cmd"] = list(spec.command)
    return config


def _host_config(spec: ContainerSpec, settings: ExecutorSettings, facts: EngineFacts) -> dict[str, Any]:
    cpus = min(settings.cpus or facts.cpus, facts.cpus)
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": settings.pids_limit,
        "Memory": settings.memory_bytes,
        "MemorySwap": settings.memory_bytes,
        "NanoCpus": int(cpus * 1e9),
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": settings.disk_bytes, "Hard": settings.disk_bytes},
        ],
        "LogConfig": _log_config(settings, facts),
        "Mounts": [{"Type": "bind", "Source": str(m.source), "Target": m.target} for m in spec.mounts],
    }
    if spec.image.read_only_root:
        host["ReadonlyRootfs"] = True
        host["Tmpfs"] = {"/tmp": f"rw,nosuid,nodev,size={64 * MIB}"}  # noqa: S108 - inside the container
    if settings.runsc != "off" and "runsc" in facts.runtimes and not spec.gpu:
        host["Runtime"] = "runsc"
    if spec.gpu:
        host["Runtime"] = "nvidia"
        host["DeviceRequests"] = [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
    return host


def _log_config(settings: ExecutorSettings, facts: EngineFacts) -> dict[str, Any]:
    """A log from which an executor that takes the container over reads again what was printed.

    ``local`` keeps every byte and costs the least; ``json-file`` spoils what is not UTF-8.
    """
    driver = next((name for name in LOG_DRIVERS if name in facts.log_drivers), "none")
    config = {"max-size": str(settings.log_bytes), "max-file": str(LOG_FILES)}
    if driver == "local":
        config["compress"] = "false"
    return {"Type": driver, "Config": {} if driver == "none" else config}
