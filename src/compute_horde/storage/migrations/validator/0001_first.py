"""Jobs, the outbox of status updates, receipts and incidents."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("replay_key", sa.String(128), unique=True),
        sa.Column("state", sa.String(32), nullable=False, index=True),
        sa.Column("miner_hotkey", sa.String(64)),
        sa.Column("miner_address", sa.String(255)),
        sa.Column("miner_port", sa.Integer),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("deadline_at", sa.Float),
        sa.Column("cheated", sa.Boolean, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_uuid", sa.String(36), nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "receipts",
        sa.Column("job_uuid", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("validator_signature", sa.String(256), nullable=False),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("miner_hotkey", sa.String(64), nullable=False),
        sa.Column("job_uuid", sa.String(36), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_incidents_at", "incidents", ["at"])


def downgrade() -> None:
    for table in ("incidents", "receipts", "outbox", "jobs"):
        op.drop_table(table)
