"""Add the changed parts of each policy change, and an index of open upload sessions.

Processes then load only the changed parts. The index counts the open sessions of a principal.

Docs: docs/data-model.md, docs/adr/0008-policy-in-memory.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "policy_changes",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("part", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("number", "part", "key", name=op.f("pk_policy_changes")),
    )
    op.create_index(
        op.f("ix_uploads_principal_active_at"), "uploads", ["principal", "active_at"], unique=False
    )
    # Earlier versions write no rows here; processes then load the whole policy.
    op.execute("UPDATE schema SET version = 16")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 15")
    op.drop_index(op.f("ix_uploads_principal_active_at"), table_name="uploads")
    op.drop_table("policy_changes")
