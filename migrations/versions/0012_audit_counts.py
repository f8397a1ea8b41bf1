"""Merge similar audit events within a minute into one row with a count.

Docs: docs/data-model.md, docs/authentication.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("audit", sa.Column("fold", text, nullable=True))
    # With a default, because the previous version writes rows without a count.
    count = sa.Column("count", sa.BigInteger(), nullable=False, server_default="1")
    op.add_column("audit", count)
    op.create_index(
        op.f("ix_audit_fold"),
        "audit",
        ["fold"],
        unique=True,
        sqlite_where=sa.text("fold IS NOT NULL"),
        postgresql_where=sa.text("fold IS NOT NULL"),
    )
    op.execute("UPDATE schema SET version = 12")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 11")
    op.drop_index(op.f("ix_audit_fold"), table_name="audit")
    op.drop_column("audit", "count")
    op.drop_column("audit", "fold")
