"""Tables of repositories and blobs."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NameText, nullable=False, unique=True),
    # Distinguishes repositories that have the same name in turn. Permissions and sessions refer to
    # it.
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("store", TEXT, nullable=False),
    sa.Column("key", TEXT, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index(None, "state", "digest"),
    sa.Index(None, "store", "digest"),
    sa.Index(None, "store", "key"),
)

repository_blobs = sa.Table(
    "repository_blobs",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", DigestText, sa.ForeignKey("blobs.digest"), primary_key=True),
    sa.Column("linked_at", sa.BigInteger, nullable=False),
    sa.Index(None, "digest"),
)
