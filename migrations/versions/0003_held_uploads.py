"""Add claims to upload sessions, for stores without locks.

Docs: docs/data-model.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("held_until", sa.BigInteger(), nullable=True))
    # min_reader stays: older code may run next to this version, because none of its stores needs
    # these claims.
    op.execute("UPDATE schema SET version = 3")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 2")
    op.drop_column("uploads", "held_until")
