"""The validator's settings: a TOML file and ``HORDE_VALIDATOR_*`` environment variables."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from compute_horde.configuration import ServiceSettings
from compute_horde.protocol.scheduling import (
    DEFAULT_ATTEMPTS,
    DEFAULT_BACKOFF_SECONDS,
    MAX_ATTEMPTS,
    MAX_PRIORITY,
    MAX_QUEUE_SECONDS,
)


class ValidatorSettings(ServiceSettings):
    """What a validator can be told. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="HORDE_VALIDATOR_", frozen=True, extra="forbid")

    facilitator_url: str = Field(
        "ws://127.0.0.1:9000/ws/v0/", description="The facilitator's WebSocket for validators."
    )
    database_url: str = Field(
        "sqlite+aiosqlite:///validator.db", description="SQLAlchemy URL of the validator's database."
    )
    chain_file: Path | None = Field(None, description="TOML file that lists validators, miners and signers.")
    wallet_path: Path = Field(Path("~/.bittensor/wallets"), description="Folder of the Bittensor wallets.")
    wallet_name: str = Field("default", description="Name of the wallet.")
    wallet_hotkey: str = Field("default", description="Name of the hotkey inside the wallet.")
    trusted_miner_address: str | None = Field(None, description="Host of the validator's own trusted miner.")
    trusted_miner_port: int | None = Field(None, gt=0, lt=65536, description="Port of the trusted miner.")
    leeway: float = Field(5, ge=0, description="Time granted to a job once, on top of its own limits.")
    reservation_limit: float = Field(7, gt=0, description="How long a miner may take to accept or decline.")
    executor_startup_limit: float = Field(
        300, ge=0, description="How long an executor may take to get ready, the image pull included."
    )
    signature_max_age: float = Field(300, gt=0, description="Oldest signature of a job that is accepted.")
    miner_connect_limit: float = Field(
        10, gt=0, description="How long one miner may take to answer a new connection."
    )
    cancel_limit: float = Field(
        30, gt=0, lt=60, description="How long a miner may take to end a cancelled job; facilitators wait 60."
    )
    queue_time_limit: float = Field(
        3600,
        ge=0,
        description="How long a job may wait for a free executor, where it has no wish of its own; 0: not at all.",
    )
    max_queue_time: float = Field(MAX_QUEUE_SECONDS, ge=0, description="The longest wait that a job can wish for.")
    attempts: int = Field(
        DEFAULT_ATTEMPTS,
        ge=1,
        le=MAX_ATTEMPTS,
        description="How often a job is tried where a failure is not its user's and it has no wish of its own.",
    )
    retry_backoff: float = Field(
        DEFAULT_BACKOFF_SECONDS,
        ge=0,
        le=60,
        description="Pause before a job's second attempt, where it has no wish of its own; it doubles each time.",
    )
    max_priority: int = Field(
        0,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY,
        description="Up to here priorities count between users; above, only among the jobs of one user.",
    )
    retention_days: float = Field(7, gt=0, description="How long jobs that have ended are remembered.")
    lease_seconds: float = Field(
        15,
        gt=0,
        description="On PostgreSQL: how long a validator may be silent before another one takes over its jobs.",
    )
    heartbeat_seconds: float = Field(60, gt=0, description="Pause between heartbeats to the facilitator.")
    operations_host: str = Field("127.0.0.1", description="Address of health and metrics.")
    operations_port: int | None = Field(
        None, ge=0, lt=65536, description="Port of health and metrics; 0 picks a free one. Default: no such port."
    )
    operations_token: SecretStr | None = Field(None, description="Asked for at /metrics.")
