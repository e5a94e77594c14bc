"""The validator's tables. Times are UNIX seconds; JSON is kept as text, exactly as it was signed or sent."""

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false

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
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_uuid", String(36), nullable=False),
    Column("frame", Text, nullable=False),
    sqlite_autoincrement=True,
)

receipts = Table(
    "receipts",
    metadata,
    Column("job_uuid", String(36), primary_key=True),
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
