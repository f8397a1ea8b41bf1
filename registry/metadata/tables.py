"""The tables. `docs/data-model.md` draws them; `migrations/` makes them.

Times are microseconds since the epoch, UTC. Names and tags compare by bytes on every database.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from registry.oci.names import RepositoryName
from storage.digest import Digest

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class DigestText(sa.types.TypeDecorator[Digest]):
    """A Digest, stored as `algorithm:hex`."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Digest | None:
        del dialect
        return None if value is None else Digest(*value.split(":", 1))


class NameText(sa.types.TypeDecorator[RepositoryName]):
    """A RepositoryName, stored as text."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: RepositoryName | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> RepositoryName | None:
        del dialect
        return None if value is None else RepositoryName(value)


schema = sa.Table(
    "schema",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("min_reader", sa.Integer, nullable=False),
)

repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NameText, nullable=False, unique=True),
    # A new repository of an old name is another repository: rights and sessions name this.
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
    sa.Column("touched_at", sa.BigInteger, nullable=False),
    sa.Index(None, "state", "digest"),
)

repository_blobs = sa.Table(
    "repository_blobs",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", DigestText, sa.ForeignKey("blobs.digest"), primary_key=True),
    sa.Column("linked_at", sa.BigInteger, nullable=False),
    sa.Index(None, "digest"),
)

manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), nullable=False),
    sa.Column("digest", DigestText, nullable=False),
    sa.Column("media_type", TEXT, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("subject", DigestText),
    sa.Column("artifact_type", TEXT),
    # JSON, kept only where a referrers answer needs it: on manifests that have a subject.
    sa.Column("annotations", sa.Text),
    sa.Column("pushed_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("repository_id", "digest"),
    sa.Index(None, "repository_id", "subject", "digest"),
    sqlite_autoincrement=True,
)

# Apart from the row, so that walking manifests does not read their bytes.
manifest_bytes = sa.Table(
    "manifest_bytes",
    metadata,
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id"), primary_key=True),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
)

# What a manifest names. `blob_digest` or `child_digest` repeats `digest` where the content is in
# this repository, and its foreign key then keeps it there; both are null for what may be absent
# (sparse images and indexes, layers that are not distributed).
manifest_edges = sa.Table(
    "manifest_edges",
    metadata,
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id"), primary_key=True),
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("repository_id", ID, nullable=False),
    sa.Column("blob_digest", DigestText),
    sa.Column("child_digest", DigestText),
    sa.ForeignKeyConstraint(
        ["repository_id", "blob_digest"],
        ["repository_blobs.repository_id", "repository_blobs.digest"],
        name="fk_manifest_edges_blob",
    ),
    sa.ForeignKeyConstraint(
        ["repository_id", "child_digest"],
        ["manifests.repository_id", "manifests.digest"],
        name="fk_manifest_edges_child",
    ),
    sa.Index(None, "repository_id", "digest"),
    sa.Index(None, "repository_id", "blob_digest"),
    sa.Index(None, "repository_id", "child_digest"),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("digest", DigestText, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(
        ["repository_id", "digest"],
        ["manifests.repository_id", "manifests.digest"],
        name="fk_tags_manifest",
    ),
    sa.Index(None, "repository_id", "digest", "name"),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("repository", NameText, nullable=False),
    # Null: the repository did not exist when the session began.
    sa.Column("repository_generation", TEXT),
    sa.Column("principal", TEXT, nullable=False),
    sa.Column("algorithm", TEXT, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    # The digest of the first `offset` bytes, where they were hashed without a gap.
    sa.Column("prefix", DigestText),
    sa.Column("store", TEXT, nullable=False),
    sa.Column("generation", TEXT, nullable=False),
    # The key the bytes may appear under: set, and committed, before they do.
    sa.Column("key", TEXT),
    # For stores that take bytes in parts: what each part is called there, as JSON.
    sa.Column("parts", sa.Text),
    # Fencing for stores whose claims are rows: grows with each claim.
    sa.Column("claim", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("active_at", sa.BigInteger, nullable=False),
    sa.Index(None, "active_at"),
)

# Keys that lost or lost their row. A job removes their bytes, then the row.
doomed = sa.Table(
    "doomed",
    metadata,
    sa.Column("store", TEXT, primary_key=True),
    sa.Column("key", TEXT, primary_key=True),
    sa.Column("not_before", sa.BigInteger, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Index(None, "store", "not_before", "key"),
)

feed = sa.Table(
    "feed",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("repository", NameText, nullable=False),
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("digest", DigestText),
    sa.Column("tag", TEXT),
    sa.Column("old_digest", DigestText),
    sa.Index(None, "repository", "tag", "number"),
)

# One row: the number of the last change. Taken as the last statement of each transaction.
feed_head = sa.Table(
    "feed_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)
