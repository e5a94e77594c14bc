"""The first schema: jobs, their outbox, receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _jobs()
    _job_messages()
    _receipts()


def downgrade() -> None:
    for table in ("receipts", "job_messages", "jobs"):
        op.drop_table(table)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_uuid", sa.String(64), primary_key=True),
        sa.Column("validator", sa.String(64), nullable=False),
        sa.Column("executor_class", sa.String(64), nullable=False),
        sa.Column("token", sa.String(128), nullable=False, unique=True),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("initial", sa.Text, nullable=False),
        sa.Column("request", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("deadline_at", sa.Float, nullable=False),
        sa.Column("acknowledged", sa.Boolean, nullable=False),
    )
    op.create_index("jobs_pending", "jobs", ["validator", "acknowledged", "created_at"])


def _job_messages() -> None:
    op.create_table(
        "job_messages",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_uuid", sa.String(64), sa.ForeignKey("jobs.job_uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_job_messages_job_uuid", "job_messages", ["job_uuid"])


def _receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_uuid", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("executor_class", sa.String(64)),
        sa.Column("organic", sa.Boolean, nullable=False),
        sa.Column("valid_from", sa.Float, nullable=False),
        sa.Column("valid_until", sa.Float, nullable=False),
        sa.Column("page", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.UniqueConstraint("job_uuid", "kind", name="receipts_first_wins"),
        sa.UniqueConstraint("page", "start", name="receipts_page_order"),
    )
