"""Mirrors of other registries, and the tags that their upstreams confirmed.

Docs: docs/reference/data-model.md, docs/guides/mirrors.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "mirrors",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("options", TEXT, nullable=False),
        sa.Column("password", TEXT, nullable=True),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_mirrors"),
        sa.UniqueConstraint("prefix", name="uq_mirrors_prefix"),
    )
    op.create_table(
        "mirror_tags",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag", name="pk_mirror_tags"),
    )
    # min_reader stays: the previous version serves what is cached as ordinary repositories.
    op.execute("UPDATE schema_version SET version = 3")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 2")
    op.drop_table("mirror_tags")
    op.drop_table("mirrors")
