"""What each change of the policy changed, so that processes load that alone;
and an index for how many upload sessions a principal has open.

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
    # Versions before this one write no rows here; then all of the policy is loaded.
    op.execute("UPDATE schema SET version = 16")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 15")
    op.drop_index(op.f("ix_uploads_principal_active_at"), table_name="uploads")
    op.drop_table("policy_changes")
