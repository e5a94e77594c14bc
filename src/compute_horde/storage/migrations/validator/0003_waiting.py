"""Waiting, attempts, what miners answered, and leases. The previous release goes on working with these tables."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_JOBS = ("ended_at", "last_failure", "queue_left_s", "queued_at", "not_before", "attempt")
_LEASE = ("lease_until", "lease_owner")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("attempt", sa.Integer, nullable=False, server_default="1"))
    for name in ("not_before", "queued_at", "queue_left_s", "ended_at"):
        op.add_column("jobs", sa.Column(name, sa.Float(53)))
    op.add_column("jobs", sa.Column("last_failure", sa.Text))
    for table in ("jobs", "outbox"):
        op.add_column(table, sa.Column("lease_owner", sa.String(64)))
        op.add_column(table, sa.Column("lease_until", sa.Float(53)))
    op.create_index("ix_jobs_ended_at", "jobs", ["ended_at"])
    op.create_index("ix_outbox_job_uuid", "outbox", ["job_uuid"])
    op.create_table(
        "attempts",
        sa.Column("job_uuid", sa.String(36), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("miner_hotkey", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("ended_at", sa.Float(53), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("fault", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "trials",
        sa.Column("job_uuid", sa.String(36), primary_key=True),
        sa.Column("miner_hotkey", sa.String(64), primary_key=True),
        sa.Column("answer", sa.String(32), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("last_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(36), nullable=False),
    )


def downgrade() -> None:
    for table in ("instance", "trials", "attempts"):
        op.drop_table(table)
    op.drop_index("ix_outbox_job_uuid", "outbox")
    op.drop_index("ix_jobs_ended_at", "jobs")
    for table in ("outbox", "jobs"):
        for column in _LEASE:
            op.drop_column(table, column)
    for column in _JOBS:
        op.drop_column("jobs", column)
