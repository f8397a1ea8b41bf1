"""Deny a new user the repositories that a previous user left below the same name.

Docs: docs/data-model.md, docs/authentication.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    # With a default, because the previous version adds users without it.
    namespace = sa.Column("namespace", sa.Boolean(), nullable=False, server_default=sa.true())
    op.add_column("users", namespace)
    op.execute("UPDATE schema SET version = 15")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 14")
    op.drop_column("users", "namespace")
