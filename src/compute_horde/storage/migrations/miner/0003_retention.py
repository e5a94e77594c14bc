"""Jobs are forgotten a while after their end: by the time of their last change."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("jobs_updated_at", "jobs", ["updated_at"])


def downgrade() -> None:
    op.drop_index("jobs_updated_at", "jobs")
