"""Add the scrub's position in the manifests.

Docs: docs/data-model.md, docs/check-and-repair.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("scrub", sa.Column("last_manifest", sa.BigInteger(), nullable=True))
    op.execute("UPDATE schema SET version = 10")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 9")
    op.drop_column("scrub", "last_manifest")
