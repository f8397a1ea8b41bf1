"""Add quotas and usage counters.

Docs: docs/data-model.md, docs/quotas.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_index(
        op.f("ix_uploads_repository_offset"), "uploads", ["repository", "offset"], unique=False
    )
    op.create_table(
        "quotas",
        sa.Column("id", ID, nullable=False),
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("counted_to", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotas")),
        sa.UniqueConstraint("pattern", name=op.f("uq_quotas_pattern")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tallies",
        sa.Column("id", ID, nullable=False),
        sa.Column("quota_id", ID, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tallies")),
        sa.UniqueConstraint("quota_id", "namespace", name=op.f("uq_tallies_quota_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tally_repositories",
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("tally_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_tally_repositories_repository_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tally_id"], ["tallies.id"], name=op.f("fk_tally_repositories_tally_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "tally_id", name=op.f("pk_tally_repositories")),
    )
    op.create_index(
        op.f("ix_tally_repositories_tally_id"), "tally_repositories", ["tally_id"], unique=False
    )
    op.create_table(
        "tally_blobs",
        sa.Column("tally_id", ID, autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("links", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tally_id", "digest", name=op.f("pk_tally_blobs")),
    )
    op.create_table(
        "tally_shards",
        sa.Column("tally_id", ID, autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tally_id", "shard", name=op.f("pk_tally_shards")),
    )
    # min_reader stays: older code may run next to this version. It counts nothing, so set quotas
    # only once it has stopped.
    op.execute("UPDATE schema SET version = 9")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 4")
    op.drop_table("tally_shards")
    op.drop_table("tally_blobs")
    op.drop_table("tally_repositories")
    op.drop_table("tallies")
    op.drop_table("quotas")
    op.drop_index(op.f("ix_uploads_repository_offset"), table_name="uploads")
