"""Quotas, and what is counted for them."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, metadata

# How many bytes of distinct blobs and of manifests the repositories of a pattern may have.
quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("pattern", TEXT, nullable=False, unique=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # The last repository, by name, that was there before the quota and is counted; null: all are.
    sa.Column("counted_to", TEXT),
    sqlite_autoincrement=True,
)

# What is counted for a quota: once, or once for each namespace (`*/**`). Without the quota, which
# goes first, it is what is left to be swept.
tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("quota_id", ID, nullable=False),
    # The first part of the names; empty where all are counted together.
    sa.Column("namespace", TEXT, nullable=False),
    # When the bytes of the tally were last compared with what is stored, by the database's clock.
    sa.Column("checked_at", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("quota_id", "namespace"),
    sa.Index(None, "checked_at"),
    sqlite_autoincrement=True,
)

# The repository's blobs are counted in the tally. Changed only by who holds the repository alone.
# So are its manifests, since `manifests_counted_at`. Null in rows that older versions inserted,
# which count blobs alone: a job counts the manifests.
tally_repositories = sa.Table(
    "tally_repositories",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("tally_id", ID, sa.ForeignKey("tallies.id"), primary_key=True),
    sa.Column("manifests_counted_at", sa.BigInteger),
    sa.Index(None, "tally_id"),
    sa.Index(
        "ix_tally_repositories_uncounted",
        "repository_id",
        sqlite_where=sa.text("manifests_counted_at IS NULL"),
        postgresql_where=sa.text("manifests_counted_at IS NULL"),
    ),
)

# In how many repositories of the tally a blob is.
tally_blobs = sa.Table(
    "tally_blobs",
    metadata,
    sa.Column("tally_id", ID, primary_key=True, autoincrement=False),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("links", sa.BigInteger, nullable=False),
)

# The bytes of a tally are the sum of its shards: no row that everybody waits for.
tally_shards = sa.Table(
    "tally_shards",
    metadata,
    sa.Column("tally_id", ID, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
