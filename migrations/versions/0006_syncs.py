"""Schedules and runs of the synchronization of mirrors, and the tags that it has set.

Docs: docs/reference/data-model.md, docs/guides/mirror-sync.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "sync_schedules",
        sa.Column("id", ID, nullable=False),
        sa.Column("mirror", TEXT, nullable=False),
        sa.Column("options", TEXT, nullable=False),
        sa.Column("every", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sync_schedules"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sync_schedules_next_at", "sync_schedules", ["next_at"])
    op.create_index("ix_sync_schedules_mirror", "sync_schedules", ["mirror"])
    op.create_table(
        "sync_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("mirror", TEXT, nullable=False),
        sa.Column("schedule_id", ID, nullable=True),
        sa.Column("options", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("progress", TEXT, nullable=False),
        sa.Column("report", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sync_runs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sync_runs_mirror_id", "sync_runs", ["mirror", "id"])
    op.create_index("ix_sync_runs_ended_at", "sync_runs", ["ended_at"])
    op.create_table(
        "synced_tags",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag", name="pk_synced_tags"),
    )
    # min_reader stays: the previous version does not use these tables.
    op.execute("UPDATE schema_version SET version = 6")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 5")
    op.drop_table("synced_tags")
    op.drop_table("sync_runs")
    op.drop_table("sync_schedules")
