"""The tables. Moments are whole microseconds since 1970, UTC; documents are JSON text, key order kept."""

import datetime as dt

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    literal_column,
)

from compute_horde.storage.leases import lease_columns

metadata = MetaData()

jobs = Table(
    "job",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("user", String(64), nullable=False),
    Column("validator", String(64), nullable=False),
    Column("signature", String(256), nullable=False, unique=True),  # replays find their job by it
    Column("tag", String(255), nullable=False),
    Column("on_trusted_miner", Boolean, nullable=False),
    Column("request", Text, nullable=False),  # JobRequest
    Column("frame", Text, nullable=False),  # V2JobRequest, exactly as it is pushed
    Column("state", String(32), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("budget_s", Float, nullable=False),
    Column("deadline_us", BigInteger, nullable=True),  # null: the job has ended
    Column("run_cross_validation", Boolean, nullable=False, server_default=false()),
    Column("cross_validates", String(36), nullable=True),  # unique: the job that this one repeats
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("attempt", Integer, nullable=False, server_default="1"),  # the one under way or last made
    Column("given_to", String(32), nullable=True, server_default="unknown"),  # a link's id; null: to nobody
    Column("holder", String(64), nullable=True),  # the validator's instance that took it
    Column("queue_limit_s", Float(53), nullable=True),  # the wish; null: the validator's own
    Column("retry_backoff_s", Float(53), nullable=True),  # likewise
    Column("latest_us", BigInteger, nullable=True),  # no deadline is later
    Column("queue_position", Integer, nullable=True),
    Column("queue_length", Integer, nullable=True),
    Column("queue_starts_us", BigInteger, nullable=True),
    Column("ended_us", BigInteger, nullable=True),
    Column("result_bytes", BigInteger, nullable=False, server_default="0"),  # of bulky output that is still there
)

statuses = Table(
    "job_status",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_uuid", ForeignKey("job.uuid", ondelete="CASCADE"), nullable=False),
    Column("user", String(64), nullable=False),
    Column("status", String(32), nullable=False),
    Column("metadata", Text, nullable=False),  # StatusMetadata without nulls
    Column("created_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    sqlite_autoincrement=True,
)

links = Table(
    "validator_link",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("validator", String(64), nullable=False),
    Column("instance", String(64), nullable=True),
    Column("extensions", String(255), nullable=False),
    Column("max_frame_bytes", BigInteger, nullable=False),
    Column("replica_url", Text, nullable=False),  # where the facilitator that has it listens
    Column("connected_at", Float(53), nullable=False),  # the database's clock, as the others
    Column("gone_at", Float(53), nullable=True),
    *lease_columns(),
)

reports = Table(
    "cheat_report",
    metadata,
    Column("job_uuid", ForeignKey("job.uuid", ondelete="CASCADE"), primary_key=True),
    Column("trusted_job_uuid", String(36), nullable=False),
    Column("validator", String(64), nullable=False),
    Column("frame", Text, nullable=False),  # V0JobCheated, exactly as it is pushed
    Column("delivered", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

feedbacks = Table(
    "feedback",
    metadata,
    Column("job_uuid", ForeignKey("job.uuid", ondelete="CASCADE"), primary_key=True),
    Column("result_correctness", Float, nullable=False),
    Column("expected_duration", Float, nullable=True),
    Column("created_us", BigInteger, nullable=False),
)

spent_nonces = Table(
    "spent_nonce",
    metadata,
    Column("nonce", String(255), primary_key=True),
    Column("expires_us", BigInteger, nullable=False),
)

secrets = Table(
    "secret",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

IS_QUEUED = jobs.c.state == literal_column("'queued'")
HAS_OUTPUT = jobs.c.result_bytes > literal_column("0")
"""Word for word the conditions of partial indexes: with a parameter, they would not be used."""


def microseconds(unix_s: float) -> int:
    return int(unix_s * 1_000_000)


def moment(us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(us // 1_000_000, dt.UTC) + dt.timedelta(microseconds=us % 1_000_000)
