"""Tables of the change feed and of the audit log."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

change_feed = sa.Table(
    "change_feed",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("repository", NameText, nullable=False),
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("digest", DigestText),
    sa.Column("tag", TEXT),
    sa.Column("old_digest", DigestText),
    sa.Index(None, "repository", "tag", "revision"),
    # Finds the first event since a time.
    sa.Index(None, "at"),
    # Finds when a manifest lost its tags. Partial, because most changes have no old digest.
    sa.Index(
        None,
        "repository",
        "old_digest",
        "at",
        sqlite_where=sa.text("old_digest IS NOT NULL"),
    ),
    # Finds the deletion of a repository, which also ended its tags.
    sa.Index(
        None,
        "generation",
        sqlite_where=sa.text("kind = 'repository.delete'"),
    ),
)

# One row: the revision of the last change. Updated by the last statement of each transaction.
change_feed_revision = sa.Table(
    "change_feed_revision",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("address", TEXT, nullable=False),
    sa.Column("request_id", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("target", TEXT, nullable=False),
    # JSON, without secrets.
    sa.Column("detail", sa.Text, nullable=False),
    # Events with the same key are merged into one row: the first event and a count.
    sa.Column("merge_key", TEXT),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Index(
        "ix_audit_log_merge_key",
        "merge_key",
        unique=True,
        sqlite_where=sa.text("merge_key IS NOT NULL"),
    ),
    sa.Index(None, "actor", "id"),
    sa.Index(None, "at"),
    sqlite_autoincrement=True,
)
