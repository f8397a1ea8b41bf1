"""Let retention rules drop nothing until they are enabled. Existing rules stay in force.

Docs: docs/data-model.md, docs/retention.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column(
        "retention_rules",
        sa.Column("enabled", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("retention_rules", sa.Column("waits_until", sa.BigInteger(), nullable=True))
    op.execute("UPDATE retention_rules SET enabled = true")
    op.execute("UPDATE schema SET version = 13")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 12")
    op.drop_column("retention_rules", "waits_until")
    op.drop_column("retention_rules", "enabled")
