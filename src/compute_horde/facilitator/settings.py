"""What an operator can set about a facilitator."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from compute_horde.configuration import ServiceSettings


class FacilitatorSettings(ServiceSettings):
    """Settings of ``horde facilitator``; the environment's names begin with ``HORDE_FACILITATOR_``."""

    model_config = SettingsConfigDict(env_prefix="HORDE_FACILITATOR_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(9000, ge=0, lt=65536, description="Port to listen on; 0 picks a free one.")
    public_url: str | None = Field(
        None, description="Where clients reach this facilitator, for links between pages; default: as they asked."
    )
    replica_url: str | None = Field(
        None,
        description="Where other replicas on the same database reach this one; default: where it listens.",
    )
    database_url: str = Field(
        "sqlite+aiosqlite:///facilitator.db", description="The database: SQLite or PostgreSQL, as a URL."
    )
    chain_file: Path | None = Field(None, description="TOML file with the validators and the users.")
    secret: SecretStr | None = Field(
        None, description="Signs nonces and tokens. Default: made once and kept in the database."
    )
    nonce_lifetime: int = Field(300, gt=0, description="Seconds within which a nonce must be used.")
    jwt_lifetime: int = Field(3600, gt=0, description="Seconds for which a login is good.")
    signature_max_age: float = Field(300, gt=0, description="Seconds after which a signed request is too old.")
    max_body_bytes: int = Field(32 * 1024 * 1024, gt=0, description="Largest request body.")
    silence_margin: float = Field(
        300, ge=0, description="Seconds beyond all of a job's limits before a silent validator's job is given up."
    )
    cancel_limit: float = Field(
        60, gt=0, description="Seconds within which a validator must end a cancelled job; then it is ended for it."
    )
    retention_days: float = Field(7, gt=0, description="Days for which a finished job is kept.")
    result_retention_days: float = Field(
        7, gt=0, description="Days for which a finished job's output and artifacts are kept."
    )
    result_bytes: int = Field(
        10 * 1024**3, ge=0, description="Output and artifacts that are kept in all; the oldest go first."
    )
    operations_host: str = Field("127.0.0.1", description="Address of health and metrics, beside the main one.")
    operations_port: int | None = Field(
        None, ge=0, lt=65536, description="Port of health and metrics; 0 picks a free one. Default: no such port."
    )
    operations_token: SecretStr | None = Field(
        None, description="Asked for at /metrics; where it is set, the main port has /metrics, too."
    )
