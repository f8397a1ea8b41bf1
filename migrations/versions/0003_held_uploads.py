"""Upload sessions that are held by their rows, for stores without locks.

Docs: docs/data-model.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("held_until", sa.BigInteger(), nullable=True))
    # Older code serves on beside this one: it knows no store whose sessions are held so.
    op.execute("UPDATE schema SET version = 3")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 2")
    op.drop_column("uploads", "held_until")
