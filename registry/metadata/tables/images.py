"""Tables of manifests, their references, tags and pulls."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, metadata

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
    # JSON, kept only on manifests with a subject, where a referrers response needs it.
    sa.Column("annotations", sa.Text),
    sa.Column("pushed_at", sa.BigInteger, nullable=False),
    # Null until the manifest is pushed again; until then, `pushed_at` is the first push. An upsert
    # that returns null has inserted the row.
    sa.Column("first_pushed_at", sa.BigInteger),
    sa.UniqueConstraint("repository_id", "digest"),
    sa.Index(None, "repository_id", "subject", "digest"),
    sqlite_autoincrement=True,
)

# In a separate table, so that a scan of manifests does not read their bytes.
manifest_bytes = sa.Table(
    "manifest_bytes",
    metadata,
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id"), primary_key=True),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
)

# References of a manifest. `blob_digest` or `child_digest` repeats `digest` if the content is in
# this repository, and its foreign key then protects the content. Both are null for content that may
# be absent (sparse images and indexes, layers that are not distributed).
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

# The last pull of a manifest by each tag, and by digest where `tag` is empty. In a separate table,
# because pushes lock the rows of manifests and tags. The pulls of a manifest are deleted with it.
pull_times = sa.Table(
    "pull_times",
    metadata,
    sa.Column(
        "manifest_id", ID, sa.ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("tag", TEXT, primary_key=True),
    sa.Column("pulled_at", sa.BigInteger, nullable=False),
)
