"""Jobs, their history, cheat reports, feedback, spent nonces and the facilitator's secret."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("validator", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(256), nullable=False, unique=True),
        sa.Column("tag", sa.String(255), nullable=False),
        sa.Column("on_trusted_miner", sa.Boolean, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("budget_s", sa.Float, nullable=False),
        sa.Column("deadline_us", sa.BigInteger, nullable=True),
    )
    op.create_index("job_newest", "job", ["user", "created_us", "uuid"])
    op.create_index("job_waiting", "job", ["validator", "state"])
    op.create_index("job_deadline", "job", ["deadline_us"])
    _create_history()
    _create_reports()
    op.create_table(
        "spent_nonce",
        sa.Column("nonce", sa.String(255), primary_key=True),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "secret",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _create_history() -> None:
    op.create_table(
        "job_status",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("job_uuid", sa.String(36), sa.ForeignKey("job.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("job_status_once", "job_status", ["job_uuid", "status"], unique=True)
    op.create_index("job_status_events", "job_status", ["user", "id"])


def _create_reports() -> None:
    op.create_table(
        "cheat_report",
        sa.Column("job_uuid", sa.String(36), sa.ForeignKey("job.uuid", ondelete="CASCADE"), primary_key=True),
        sa.Column("trusted_job_uuid", sa.String(36), nullable=False),
        sa.Column("validator", sa.String(64), nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("cheat_report_waiting", "cheat_report", ["validator", "delivered"])
    op.create_table(
        "feedback",
        sa.Column("job_uuid", sa.String(36), sa.ForeignKey("job.uuid", ondelete="CASCADE"), primary_key=True),
        sa.Column("result_correctness", sa.Float, nullable=False),
        sa.Column("expected_duration", sa.Float, nullable=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("secret", "spent_nonce", "feedback", "cheat_report", "job_status", "job"):
        op.drop_table(table)
