"""Add store migration and database copy: blobs by store, and the write freeze.

Docs: docs/data-model.md, docs/moving.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_index(op.f("ix_blobs_store_digest"), "blobs", ["store", "digest"], unique=False)
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("token", TEXT, nullable=False),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
    )
    op.execute("UPDATE schema SET version = 4")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 3")
    op.drop_table("moves")
    op.drop_index(op.f("ix_blobs_store_digest"), table_name="blobs")
