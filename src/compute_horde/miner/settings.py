"""The miner's settings: arguments, then ``HORDE_MINER_*`` in the environment, then a TOML file."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from compute_horde.configuration import ServiceSettings
from compute_horde.protocol.enums import ExecutorClass

Seconds = Annotated[float, Field(ge=0)]


class MinerSettings(ServiceSettings):
    """One miner. Time limits are in seconds.

    * ``port``: 0 picks a free one
    * ``chain_file``: the static directory of validators
    * ``wallet_path``, ``wallet_name``, ``wallet_hotkey``: whose key countersigns receipts
    * ``executors``: how many jobs of each class may run at once
    * ``executor_address``: what executors dial; default ``ws://<host>:<port>``
    * ``executor_startup_limit``: how long an executor may take to be ready, beyond its class's spin-up
    * ``executor_reconnect_limit``: how long a job waits for an executor when none that was started for it is
      known to be alive (G47)
    * ``executor_exit_limit``: how long an executor may tidy up after its job; it is killed then
    * ``executor_lifetime``: a job whose own limits would hold an executor longer is declined; None: none is
    * ``job_request_limit``: how long a ready executor waits for the validator's job request
    * ``cancel_limit``: how long an executor may take to end a cancelled job; it is killed then
    * ``retention``: a job is forgotten so long after its end
    * ``auth_limit``: how long a new connection may stay unauthenticated
    * ``trusted_for``: the one validator of a trusted miner (section 1); no receipts then
    * ``warm``: executors of each class kept started for the next job
    * ``main_hotkey``: the answer to a validator that asks for it
    * ``operations_host``, ``operations_port``: where health and metrics are, beside the main port; None: nowhere
      else; 0 picks a free port
    * ``operations_token``: asked for at ``/metrics``; where it is set, the main port has ``/metrics``, too
    """

    model_config = SettingsConfigDict(env_prefix="HORDE_MINER_", frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, lt=65536)
    database_url: str = "sqlite+aiosqlite:///miner.db"
    chain_file: Path | None = None
    wallet_path: Path = Path("~/.bittensor/wallets")
    wallet_name: str = "default"
    wallet_hotkey: str = "default"
    executors: dict[ExecutorClass, Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: {ExecutorClass.always_on__test: 1}
    )
    executor_address: str | None = None
    executor_startup_limit: Seconds = 300
    executor_reconnect_limit: Seconds = 30
    executor_exit_limit: Seconds = 60
    executor_lifetime: Seconds | None = None
    job_request_limit: Seconds = 600
    cancel_limit: Seconds = 15
    retention: Seconds = 7 * 24 * 3600
    auth_limit: Seconds = 10
    trusted_for: str | None = None
    warm: int = Field(default=1, ge=0)
    main_hotkey: str | None = None
    operations_host: str = "127.0.0.1"
    operations_port: int | None = Field(default=None, ge=0, lt=65536)
    operations_token: SecretStr | None = None
