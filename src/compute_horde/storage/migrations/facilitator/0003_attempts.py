"""Attempts, waiting, who holds a job, and the links of several replicas.

It only adds, save for the index that allowed each status once: it now allows it once an attempt. The previous
release goes on beside it. What that one writes has the defaults: attempt 1, and ``unknown`` for whom a job was
given to, since it does not say.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HAS_OUTPUT = "result_bytes > 0"
_QUEUED = "state = 'queued'"


def upgrade() -> None:
    for column in _job_columns():
        op.add_column("job", column)
    op.add_column("job_status", sa.Column("attempt", sa.Integer, nullable=False, server_default="1"))
    op.drop_index("job_status_once", "job_status")
    op.create_index("job_status_once_an_attempt", "job_status", ["job_uuid", "attempt", "status"], unique=True)
    op.create_index("job_ended", "job", ["ended_us"])
    _create_partial("job_queued", ["user"], _QUEUED)
    _create_partial("job_output", ["ended_us", "result_bytes"], _HAS_OUTPUT)
    op.create_index("spent_nonce_expiry", "spent_nonce", ["expires_us"])
    op.create_table(
        "validator_link",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("validator", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(64), nullable=True),
        sa.Column("extensions", sa.String(255), nullable=False),
        sa.Column("max_frame_bytes", sa.BigInteger, nullable=False),
        sa.Column("replica_url", sa.Text, nullable=False),
        sa.Column("connected_at", sa.Float(53), nullable=False),
        sa.Column("gone_at", sa.Float(53), nullable=True),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until", sa.Float(53), nullable=True),
    )
    op.create_index("validator_link_newest", "validator_link", ["validator", "connected_at"])


def _job_columns() -> list[sa.Column[object]]:
    columns: list[sa.Column[object]] = [
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("given_to", sa.String(32), nullable=True, server_default="unknown"),
        sa.Column("holder", sa.String(64), nullable=True),
        sa.Column("queue_limit_s", sa.Float(53), nullable=True),
        sa.Column("retry_backoff_s", sa.Float(53), nullable=True),
        sa.Column("latest_us", sa.BigInteger, nullable=True),
        sa.Column("queue_position", sa.Integer, nullable=True),
        sa.Column("queue_length", sa.Integer, nullable=True),
        sa.Column("queue_starts_us", sa.BigInteger, nullable=True),
        sa.Column("ended_us", sa.BigInteger, nullable=True),
        sa.Column("result_bytes", sa.BigInteger, nullable=False, server_default="0"),
    ]
    return columns


def _create_partial(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "job", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Of a status that came once an attempt the newest stays, and a job that waits has been received."""
    op.drop_table("validator_link")
    op.drop_index("spent_nonce_expiry", "spent_nonce")
    for index in ("job_output", "job_queued", "job_ended"):
        op.drop_index(index, "job")
    op.drop_index("job_status_once_an_attempt", "job_status")
    op.execute(
        "DELETE FROM job_status WHERE id NOT IN (SELECT max(id) FROM job_status GROUP BY job_uuid, status)"
        " OR status = 'queued'"
    )
    op.execute("UPDATE job SET state = 'received' WHERE state = 'queued'")
    op.create_index("job_status_once", "job_status", ["job_uuid", "status"], unique=True)
    op.drop_column("job_status", "attempt")
    for column in reversed(_job_columns()):
        op.drop_column("job", column.name)
