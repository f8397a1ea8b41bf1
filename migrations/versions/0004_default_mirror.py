"""The mirror of requests that name no mirror.

Docs: docs/reference/data-model.md, docs/adr/mirrors/0027-default-mirror.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("mirrors", sa.Column("default_for", TEXT, nullable=True))
    # min_reader stays: the previous version responds 404 to requests that name no mirror.
    op.execute("UPDATE schema_version SET version = 4")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 3")
    op.drop_column("mirrors", "default_for")
