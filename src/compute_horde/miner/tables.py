"""The miner's tables. Times are UNIX seconds."""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("job_uuid", String(64), primary_key=True),
    Column("validator", String(64), nullable=False),
    Column("executor_class", String(64), nullable=False),
    Column("token", String(128), nullable=False, unique=True),
    Column("state", String(32), nullable=False),
    Column("initial", Text, nullable=False),
    Column("request", Text),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("deadline_at", Float, nullable=False),
    Column("acknowledged", Boolean, nullable=False, default=False),
    Column("cancel_requested", Boolean, nullable=False, default=False, server_default=false()),
    Index("jobs_pending", "validator", "acknowledged", "created_at"),
    Index("jobs_updated_at", "updated_at"),
)
"""Accepted jobs. ``acknowledged``: the validator's finished receipt has come, nothing needs to be re-sent.
``cancel_requested``: the validator wants the job to end.
"""

job_messages = Table(
    "job_messages",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_uuid", String(64), ForeignKey("jobs.job_uuid", ondelete="CASCADE"), nullable=False, index=True),
    Column("type", String(64), nullable=False),
    Column("frame", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)
"""The outbox: every frame for the validator about a job, in order."""

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_uuid", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("executor_class", String(64)),
    Column("organic", Boolean, nullable=False, default=False),
    Column("valid_from", Float, nullable=False),
    Column("valid_until", Float, nullable=False),
    Column("page", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("line", Text, nullable=False),
    UniqueConstraint("job_uuid", "kind", name="receipts_first_wins"),
    UniqueConstraint("page", "start", name="receipts_page_order"),
)
"""Countersigned receipts; ``start`` and ``size`` are the line's bytes within its page (section 9.4)."""
