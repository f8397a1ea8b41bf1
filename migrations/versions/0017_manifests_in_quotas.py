"""Count manifests in quotas, and compare usage counters with the stored content.

Docs: docs/data-model.md, docs/quotas.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    # Null in existing rows and in those that older versions insert, until the job counts them.
    counted_at = sa.Column("manifests_counted_at", sa.BigInteger(), nullable=True)
    op.add_column("tally_repositories", counted_at)
    op.create_index(
        op.f("ix_tally_repositories_uncounted"),
        "tally_repositories",
        ["repository_id"],
        unique=False,
        sqlite_where=sa.text("manifests_counted_at IS NULL"),
        postgresql_where=sa.text("manifests_counted_at IS NULL"),
    )
    # With a default, because older versions insert rows without it.
    checked_at = sa.Column("checked_at", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("tallies", checked_at)
    op.create_index(op.f("ix_tallies_checked_at"), "tallies", ["checked_at"], unique=False)
    op.execute("UPDATE schema SET version = 17")


def downgrade() -> None:
    op.execute("UPDATE schema SET version = 16")
    op.drop_index(op.f("ix_tallies_checked_at"), table_name="tallies")
    op.drop_column("tallies", "checked_at")
    op.drop_index(op.f("ix_tally_repositories_uncounted"), table_name="tally_repositories")
    op.drop_column("tally_repositories", "manifests_counted_at")
