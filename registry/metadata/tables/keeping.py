"""What is kept, what is dropped, and what can be taken back."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

# What keeps a manifest whoever wants it to go. The foreign key refuses its deletion by older code
# too, which asks nobody.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("repository_id", ID, nullable=False),
    sa.Column("digest", DigestText, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # By the database's clock; null: never.
    sa.Column("expires_at", sa.BigInteger),
    sa.ForeignKeyConstraint(
        ["repository_id", "digest"],
        ["manifests.repository_id", "manifests.digest"],
        name="fk_holds_manifest",
    ),
    sa.Index(None, "repository_id", "digest"),
    sa.Index(None, "expires_at"),
    sqlite_autoincrement=True,
)

# Which tags of the repositories of a pattern cannot be moved or deleted.
immutable_tags = sa.Table(
    "immutable_tags",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("pattern", TEXT, nullable=False),
    sa.Column("tags", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("pattern", "tags"),
    sqlite_autoincrement=True,
)

# What is kept and what is dropped in the repositories of a pattern. Ages in microseconds; null:
# there is no such rule.
retention_rules = sa.Table(
    "retention_rules",
    metadata,
    sa.Column("pattern", TEXT, primary_key=True),
    # Patterns of tags, between spaces, which they cannot have.
    sa.Column("keep", TEXT, nullable=False),
    sa.Column("keep_newest", sa.BigInteger),
    sa.Column("newest_by", TEXT, nullable=False),
    sa.Column("keep_per_minor", sa.BigInteger),
    # As `keep`.
    sa.Column("drop", TEXT, nullable=False),
    sa.Column("drop_not_pulled", sa.BigInteger),
    sa.Column("drop_untagged", sa.BigInteger),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    # What is not enabled keeps, and drops nothing.
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.false()),
    # By the database's clock: nothing is dropped before in the repositories of the pattern. A row
    # without any rule is what is left for that time of one that was removed.
    sa.Column("waits_until", sa.BigInteger),
)

# At most one row: the last run of the rules over all repositories, or the one under way.
retention_run = sa.Table(
    "retention_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # Null: it is under way.
    sa.Column("ended_at", sa.BigInteger),
    # The last repository that is done.
    sa.Column("done", TEXT, nullable=False),
    # How many were dropped.
    sa.Column("tags", sa.BigInteger, nullable=False),
    sa.Column("manifests", sa.BigInteger, nullable=False),
)

# Manifests that were deleted, so that a mistake can be taken back for a grace.
removed_manifests = sa.Table(
    "removed_manifests",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("generation", TEXT, primary_key=True),
    sa.Column("media_type", TEXT, nullable=False),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
    # The digests of the blobs and of the manifests of the repository that it was tied to, between
    # spaces: it had been proved that they belong to it.
    sa.Column("blobs", TEXT, nullable=False),
    sa.Column("children", TEXT, nullable=False),
    sa.Column("removed_by", TEXT, nullable=False),
    # By the database's clock.
    sa.Column("removed_at", sa.BigInteger, nullable=False),
    sa.Index(None, "removed_at"),
)
