"""Add legal holds, immutable tags and recently deleted manifests.

Docs: docs/data-model.md, docs/history.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("id", ID, nullable=False),
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_holds_manifest",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_holds_repository_id_digest"), "holds", ["repository_id", "digest"], unique=False
    )
    op.create_index(op.f("ix_holds_expires_at"), "holds", ["expires_at"], unique=False)
    op.create_table(
        "immutable_tags",
        sa.Column("id", ID, nullable=False),
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_immutable_tags")),
        sa.UniqueConstraint("pattern", "tags", name=op.f("uq_immutable_tags_pattern")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "removed_manifests",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("generation", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("blobs", TEXT, nullable=False),
        sa.Column("children", TEXT, nullable=False),
        sa.Column("removed_by", TEXT, nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "repository", "digest", "generation", name=op.f("pk_removed_manifests")
        ),
    )
    op.create_index(
        op.f("ix_removed_manifests_removed_at"), "removed_manifests", ["removed_at"], unique=False
    )
    op.create_index(
        op.f("ix_feed_generation"),
        "feed",
        ["generation"],
        unique=False,
        sqlite_where=sa.text("kind = 'repository.delete'"),
        postgresql_where=sa.text("kind = 'repository.delete'"),
    )
    op.execute("UPDATE schema SET version = 7")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 5")
    op.drop_index(op.f("ix_feed_generation"), table_name="feed")
    op.drop_index(op.f("ix_removed_manifests_removed_at"), table_name="removed_manifests")
    op.drop_table("removed_manifests")
    op.drop_table("immutable_tags")
    op.drop_index(op.f("ix_holds_expires_at"), table_name="holds")
    op.drop_index(op.f("ix_holds_repository_id_digest"), table_name="holds")
    op.drop_table("holds")
