"""Count manifests in quotas.

Docs: docs/reference/data-model.md, docs/guides/quotas.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Null in existing rows and in those that the previous version inserts, until a job counts them.
    counted_at = sa.Column("manifests_counted_at", sa.BigInteger(), nullable=True)
    op.add_column("usage_counter_repositories", counted_at)
    op.create_index(
        "ix_usage_counter_repositories_uncounted",
        "usage_counter_repositories",
        ["repository_id"],
        unique=False,
        sqlite_where=sa.text("manifests_counted_at IS NULL"),
        postgresql_where=sa.text("manifests_counted_at IS NULL"),
    )
    # min_reader stays: the previous version may run next to this one.
    op.execute("UPDATE schema_version SET version = 2")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 1")
    op.drop_index(
        "ix_usage_counter_repositories_uncounted", table_name="usage_counter_repositories"
    )
    op.drop_column("usage_counter_repositories", "manifests_counted_at")
