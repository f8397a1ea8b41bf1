"""Add the scrub, and an index of blobs by key for the comparison with a store.

Docs: docs/data-model.md, docs/check-and-repair.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_index(op.f("ix_blobs_store_key"), "blobs", ["store", "key"], unique=False)
    op.create_table(
        "scrub",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("running", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("last", TEXT, nullable=True),
        sa.Column("blobs", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("damaged", sa.BigInteger(), nullable=False),
        sa.Column("unreadable", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scrub")),
    )
    op.execute("UPDATE schema SET version = 6")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 4")
    op.drop_table("scrub")
    op.drop_index(op.f("ix_blobs_store_key"), table_name="blobs")
