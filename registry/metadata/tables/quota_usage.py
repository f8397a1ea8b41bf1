"""Tables of quotas and usage counters."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, metadata

# The bytes of distinct blobs and of manifests that the repositories of a pattern may use.
quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("pattern", TEXT, nullable=False, unique=True),
    sa.Column("limit_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # The last repository, by name, of the recount of content older than the quota; null if the
    # recount is complete.
    sa.Column("recount_cursor", TEXT),
    sqlite_autoincrement=True,
)

# Usage counters of a quota: one, or one for each namespace (`*/**`). Counters outlive their quota
# until a job deletes them.
usage_counters = sa.Table(
    "usage_counters",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("quota_id", ID, nullable=False),
    # The first part of the names; empty if all repositories are counted together.
    sa.Column("namespace", TEXT, nullable=False),
    # Time of the last comparison with the stored content, by the database's clock.
    sa.Column("checked_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("quota_id", "namespace"),
    sa.Index(None, "checked_at"),
    sqlite_autoincrement=True,
)

# Repositories whose blobs the counter counts. Changed only under an exclusive lock of the
# repository. Manifests are counted since `manifests_counted_at`. It is null in rows that older
# versions inserted, which count only blobs, until a job counts the manifests.
usage_counter_repositories = sa.Table(
    "usage_counter_repositories",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("counter_id", ID, sa.ForeignKey("usage_counters.id"), primary_key=True),
    sa.Column("manifests_counted_at", sa.BigInteger),
    sa.Index(None, "counter_id"),
    sa.Index(
        "ix_usage_counter_repositories_uncounted",
        "repository_id",
        sqlite_where=sa.text("manifests_counted_at IS NULL"),
    ),
)

# Number of repositories of the counter that have a blob.
usage_counter_blobs = sa.Table(
    "usage_counter_blobs",
    metadata,
    sa.Column("counter_id", ID, primary_key=True, autoincrement=False),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("repository_count", sa.BigInteger, nullable=False),
)

# The bytes of a counter are the sum of its shards, so that transactions do not wait for one row.
usage_counter_shards = sa.Table(
    "usage_counter_shards",
    metadata,
    sa.Column("counter_id", ID, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
