"""Tables of legal holds, immutable tags and deleted manifests."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

# Legal holds, which protect a manifest against every deletion. The foreign key refuses a deletion
# that does not check them.
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
    sa.Column("tag_pattern", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("pattern", "tag_pattern"),
    sqlite_autoincrement=True,
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
