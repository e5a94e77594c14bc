"""Cancelling, the link between a job and its repetition, and indexes for lists that start at a job."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("run_cross_validation", "cancel_requested"):
        op.add_column("job", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("cross_validates", sa.String(36), nullable=True))
    op.create_index("job_repetition", "job", ["cross_validates"], unique=True)
    op.create_index("job_newest_of_tag", "job", ["user", "tag", "created_us", "uuid"])
    under_way = sa.text("deadline_us IS NOT NULL")
    op.create_index(
        "job_newest_pending",
        "job",
        ["user", "created_us", "uuid"],
        sqlite_where=under_way,
        postgresql_where=under_way,
    )


def downgrade() -> None:
    for index in ("job_newest_pending", "job_newest_of_tag", "job_repetition"):
        op.drop_index(index, "job")
    for column in ("cross_validates", "cancel_requested", "run_cross_validation"):
        op.drop_column("job", column)
