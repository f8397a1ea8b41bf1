"""Add retention: pull times, rules, the last run, and an index of lost tags.

Docs: docs/data-model.md, docs/retention.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "pulls",
        sa.Column("manifest_id", ID, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("pulled_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
            name=op.f("fk_pulls_manifest_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("manifest_id", "tag", name=op.f("pk_pulls")),
    )
    op.create_table(
        "retention_rules",
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("keep", TEXT, nullable=False),
        sa.Column("keep_newest", sa.BigInteger(), nullable=True),
        sa.Column("newest_by", TEXT, nullable=False),
        sa.Column("keep_per_minor", sa.BigInteger(), nullable=True),
        sa.Column("drop", TEXT, nullable=False),
        sa.Column("drop_not_pulled", sa.BigInteger(), nullable=True),
        sa.Column("drop_untagged", sa.BigInteger(), nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pattern", name=op.f("pk_retention_rules")),
    )
    op.create_table(
        "retention_run",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("done", TEXT, nullable=False),
        sa.Column("tags", sa.BigInteger(), nullable=False),
        sa.Column("manifests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_run")),
    )
    op.create_index(
        op.f("ix_feed_repository_old_digest_at"),
        "feed",
        ["repository", "old_digest", "at"],
        unique=False,
        sqlite_where=sa.text("old_digest IS NOT NULL"),
        postgresql_where=sa.text("old_digest IS NOT NULL"),
    )
    op.execute("UPDATE schema SET version = 8")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 4")
    op.drop_index(op.f("ix_feed_repository_old_digest_at"), table_name="feed")
    op.drop_table("retention_run")
    op.drop_table("retention_rules")
    op.drop_table("pulls")
