"""Add the time of a manifest's first push, which is its modification time by digest.

Docs: docs/data-model.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("manifests", sa.Column("first_pushed_at", sa.BigInteger(), nullable=True))
    op.execute("UPDATE schema SET version = 14")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 13")
    op.drop_column("manifests", "first_pushed_at")
