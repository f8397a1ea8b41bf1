"""Tables of legal holds, immutable tags, retention and deleted manifests."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

# Legal holds, which protect a manifest against every deletion. Older code does not check them, but
# the foreign key refuses its deletions too.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("repository_id", ID, nullable=False),
    sa.Column("digest", DigestText, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # By the database's clock; null if the hold does not expire.
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

# Tags that cannot be moved or deleted, by repository pattern.
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

# What is kept and dropped in the repositories of a pattern. Ages are in microseconds; null means
# that there is no such rule.
retention_rules = sa.Table(
    "retention_rules",
    metadata,
    sa.Column("pattern", TEXT, primary_key=True),
    # Patterns of tags, separated by spaces, which a pattern cannot contain.
    sa.Column("keep", TEXT, nullable=False),
    sa.Column("keep_newest", sa.BigInteger),
    sa.Column("newest_by", TEXT, nullable=False),
    sa.Column("keep_per_minor", sa.BigInteger),
    # As `keep`.
    sa.Column("drop", TEXT, nullable=False),
    sa.Column("drop_not_pulled", sa.BigInteger),
    sa.Column("drop_untagged", sa.BigInteger),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    # If false, the rules keep but drop nothing.
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.false()),
    # Nothing is dropped in the repositories of the pattern before this time, by the database's
    # clock. A row without any rule is the rest of removed rules, kept until then.
    sa.Column("waits_until", sa.BigInteger),
)

# At most one row: the last run of the rules over all repositories, or the current one.
retention_run = sa.Table(
    "retention_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # Null while the run is in progress.
    sa.Column("ended_at", sa.BigInteger),
    # The last processed repository.
    sa.Column("done", TEXT, nullable=False),
    # Numbers of dropped items.
    sa.Column("tags", sa.BigInteger, nullable=False),
    sa.Column("manifests", sa.BigInteger, nullable=False),
)

# Deleted manifests, which can be restored during the grace period.
removed_manifests = sa.Table(
    "removed_manifests",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("generation", TEXT, primary_key=True),
    sa.Column("media_type", TEXT, nullable=False),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
    # The blobs and the manifests of the repository that it referenced, as digests separated by
    # spaces. The push proved that they belong to the manifest.
    sa.Column("blobs", TEXT, nullable=False),
    sa.Column("children", TEXT, nullable=False),
    sa.Column("removed_by", TEXT, nullable=False),
    # By the database's clock.
    sa.Column("removed_at", sa.BigInteger, nullable=False),
    sa.Index(None, "removed_at"),
)
