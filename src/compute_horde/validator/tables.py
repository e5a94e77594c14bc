"""The validator's tables. Times are UNIX seconds; JSON is kept as text, exactly as it was signed or sent."""

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false

from compute_horde.storage.leases import lease_columns

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("request", Text, nullable=False),
    Column("replay_key", String(128), unique=True),  # null where the signature was not valid
    Column("state", String(32), nullable=False, index=True),
    Column("miner_hotkey", String(64)),  # set with the two below before the initial request is sent
    Column("miner_address", String(255)),
    Column("miner_port", Integer),
    Column("received_at", Float, nullable=False),
    Column("started_at", Float),
    Column("deadline_at", Float),  # of the state the job is in
    Column("cheated", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),  # since 0002
    # since 0003
    Column("attempt", Integer, nullable=False, server_default="1"),  # under way, or made next
    Column("not_before", Float(53)),  # of the next attempt
    Column("queued_at", Float(53)),  # while it waits: since when
    Column("queue_left_s", Float(53)),  # how long it may wait, from queued_at on; null: it has not waited yet
    Column("last_failure", Text),  # how the last attempt ended, until the job has ended
    Column("ended_at", Float(53), index=True),
    *lease_columns(),
)

attempts = Table(
    "attempts",  # those that failed and were followed by another; the last one is in the job's own row
    metadata,
    Column("job_uuid", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("miner_hotkey", String(64), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53), nullable=False),
    Column("code", String(64), nullable=False),
    Column("fault", String(16), nullable=False),
    Column("message", Text, nullable=False),
)

trials = Table(
    "trials",  # the last answer of each miner that was asked to take a job
    metadata,
    Column("job_uuid", String(36), primary_key=True),
    Column("miner_hotkey", String(64), primary_key=True),
    Column("answer", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("last_at", Float(53), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_uuid", String(36), nullable=False, index=True),
    Column("frame", Text, nullable=False),
    *lease_columns(),
    sqlite_autoincrement=True,
)

receipts = Table(
    "receipts",
    metadata,
    Column("job_uuid", String(36), primary_key=True),  # the attempt's
    Column("kind", String(32), primary_key=True),
    Column("payload", Text, nullable=False),
    Column("validator_signature", String(256), nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("miner_hotkey", String(64), nullable=False),
    Column("job_uuid", String(36), nullable=False),
    Column("code", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_incidents_at", "at"),
)

instance = Table(
    "instance",  # one row: this database's name among those of validators with the same key
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(36), nullable=False),
)
