"""Add an index of the change feed by time, for queries of events since a time.

Docs: docs/data-model.md, docs/commands.md.
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index(op.f("ix_feed_at"), "feed", ["at"], unique=False)
    op.execute("UPDATE schema SET version = 11")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 10")
    op.drop_index(op.f("ix_feed_at"), table_name="feed")
