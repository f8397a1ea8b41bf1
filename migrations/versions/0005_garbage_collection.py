"""Add garbage collection: the queue of candidates and the collector's state.

Docs: docs/data-model.md, docs/garbage-collection.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
}


def upgrade() -> None:
    op.create_table(
        "candidates",
        sa.Column("repository_id", ID, autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("parked", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "kind", "digest", name=op.f("pk_candidates")),
    )
    op.create_index(
        op.f("ix_candidates_parked_since_repository_id_kind_digest"),
        "candidates",
        ["parked", "since", "repository_id", "kind", "digest"],
        unique=False,
    )
    op.create_table(
        "collector",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("boot", TEXT, nullable=False),
        sa.Column("ahead", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("jumped_at", sa.BigInteger(), nullable=True),
        sa.Column("jump", sa.BigInteger(), nullable=False),
        sa.Column("filling", TEXT, nullable=True),
        sa.Column("fill_since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collector")),
    )
    op.create_table(
        "unreadable",
        sa.Column("repository_id", ID, autoincrement=False, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_unreadable")),
    )
    connection = op.get_bind()
    now = NOW[connection.dialect.name]
    # The collector queues existing content once, in steps. Older code that still runs next to this
    # version queues nothing, so this backfill begins after one grace period.
    op.execute(
        "INSERT INTO collector (id, boot, ahead, clock, jumped_at, jump, filling, fill_since) "  # noqa: S608
        "SELECT 1, '', 0, 0, NULL, 0, "
        "CASE WHEN EXISTS (SELECT 1 FROM repositories) OR EXISTS (SELECT 1 FROM blobs) "
        f"THEN '' ELSE NULL END, {now}"
    )
    op.execute("UPDATE schema SET version = 5")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 4")
    op.drop_table("unreadable")
    op.drop_table("collector")
    op.drop_index(
        op.f("ix_candidates_parked_since_repository_id_kind_digest"), table_name="candidates"
    )
    op.drop_table("candidates")
