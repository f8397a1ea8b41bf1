"""Sizes of mirrors, for evictions.

Docs: docs/reference/data-model.md, docs/guides/mirrors.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "mirror_usage",
        sa.Column("mirror", TEXT, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", sa.BigInteger(), nullable=False),
        sa.Column("is_evicting", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("mirror", name="pk_mirror_usage"),
    )
    # min_reader stays: the previous version evicts nothing.
    op.execute("UPDATE schema_version SET version = 5")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 4")
    op.drop_table("mirror_usage")
