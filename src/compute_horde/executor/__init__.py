"""Runs one job over its miner's WebSocket, in a container."""

from compute_horde.executor.docker import DockerRuntime
from compute_horde.executor.runtime import ContainerRuntime
from compute_horde.executor.service import Executor
from compute_horde.executor.settings import ExecutorSettings

__all__ = ["ContainerRuntime", "DockerRuntime", "Executor", "ExecutorSettings"]
