"""History of mirrored tags, for cooldowns.

Docs: docs/reference/data-model.md, docs/guides/mirrors.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "mirror_tag_history",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag", "digest", name="pk_mirror_tag_history"),
    )
    op.execute(
        "INSERT INTO mirror_tag_history (repository, tag, digest, first_seen_at) "
        "SELECT repository, tag, digest, checked_at FROM mirror_tags"
    )
    # min_reader stays: the previous version holds nothing back.
    op.execute("UPDATE schema_version SET version = 7")


def downgrade() -> None:
    op.execute("UPDATE schema_version SET version = 6")
    op.drop_table("mirror_tag_history")
