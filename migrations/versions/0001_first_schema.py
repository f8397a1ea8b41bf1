"""First schema.

Docs: docs/data-model.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("store", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_index(op.f("ix_blobs_state_digest"), "blobs", ["state", "digest"], unique=False)
    op.create_table(
        "doomed",
        sa.Column("store", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("store", "key", name=op.f("pk_doomed")),
    )
    op.create_index(
        op.f("ix_doomed_store_not_before_key"),
        "doomed",
        ["store", "not_before", "key"],
        unique=False,
    )
    op.create_table(
        "feed",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("generation", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=True),
        sa.Column("tag", TEXT, nullable=True),
        sa.Column("old_digest", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_feed")),
    )
    op.create_index(
        op.f("ix_feed_repository_tag_number"), "feed", ["repository", "tag", "number"], unique=False
    )
    op.create_table(
        "feed_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed_head")),
    )
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "repositories",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("generation", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("name", name=op.f("uq_repositories_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "schema",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("min_reader", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema")),
    )
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("repository_generation", TEXT, nullable=True),
        sa.Column("principal", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("prefix", TEXT, nullable=True),
        sa.Column("store", TEXT, nullable=False),
        sa.Column("generation", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=True),
        sa.Column("parts", sa.Text(), nullable=True),
        sa.Column("claim", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("active_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_active_at"), "uploads", ["active_at"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("id", ID, nullable=False),
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("subject", TEXT, nullable=True),
        sa.Column("artifact_type", TEXT, nullable=True),
        sa.Column("annotations", sa.Text(), nullable=True),
        sa.Column("pushed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_manifests_repository_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifests")),
        sa.UniqueConstraint("repository_id", "digest", name=op.f("uq_manifests_repository_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_manifests_repository_id_subject_digest"),
        "manifests",
        ["repository_id", "subject", "digest"],
        unique=False,
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("linked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"], ["blobs.digest"], name=op.f("fk_repository_blobs_digest")
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_repository_blobs_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_repository_blobs")),
    )
    op.create_index(
        op.f("ix_repository_blobs_digest"), "repository_blobs", ["digest"], unique=False
    )
    op.create_table(
        "manifest_bytes",
        sa.Column("manifest_id", ID, nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("fk_manifest_bytes_manifest_id")
        ),
        sa.PrimaryKeyConstraint("manifest_id", name=op.f("pk_manifest_bytes")),
    )
    op.create_table(
        "manifest_edges",
        sa.Column("manifest_id", ID, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("blob_digest", TEXT, nullable=True),
        sa.Column("child_digest", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("fk_manifest_edges_manifest_id")
        ),
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
        sa.PrimaryKeyConstraint("manifest_id", "kind", "digest", name=op.f("pk_manifest_edges")),
    )
    op.create_index(
        op.f("ix_manifest_edges_repository_id_blob_digest"),
        "manifest_edges",
        ["repository_id", "blob_digest"],
        unique=False,
    )
    op.create_index(
        op.f("ix_manifest_edges_repository_id_child_digest"),
        "manifest_edges",
        ["repository_id", "child_digest"],
        unique=False,
    )
    op.create_index(
        op.f("ix_manifest_edges_repository_id_digest"),
        "manifest_edges",
        ["repository_id", "digest"],
        unique=False,
    )
    op.create_table(
        "tags",
        sa.Column("repository_id", ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_tags_manifest",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_tags_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_tags")),
    )
    op.create_index(
        op.f("ix_tags_repository_id_digest_name"),
        "tags",
        ["repository_id", "digest", "name"],
        unique=False,
    )
    op.execute("INSERT INTO schema (id, version, min_reader) VALUES (1, 1, 1)")
    op.execute("INSERT INTO feed_head (id, number) VALUES (1, 0)")


def downgrade() -> None:
    op.drop_index(op.f("ix_tags_repository_id_digest_name"), table_name="tags")
    op.drop_table("tags")
    op.drop_index(op.f("ix_manifest_edges_repository_id_digest"), table_name="manifest_edges")
    op.drop_index(op.f("ix_manifest_edges_repository_id_child_digest"), table_name="manifest_edges")
    op.drop_index(op.f("ix_manifest_edges_repository_id_blob_digest"), table_name="manifest_edges")
    op.drop_table("manifest_edges")
    op.drop_table("manifest_bytes")
    op.drop_index(op.f("ix_repository_blobs_digest"), table_name="repository_blobs")
    op.drop_table("repository_blobs")
    op.drop_index(op.f("ix_manifests_repository_id_subject_digest"), table_name="manifests")
    op.drop_table("manifests")
    op.drop_index(op.f("ix_uploads_active_at"), table_name="uploads")
    op.drop_table("uploads")
    op.drop_table("schema")
    op.drop_table("repositories")
    op.drop_table("leases")
    op.drop_table("feed_head")
    op.drop_index(op.f("ix_feed_repository_tag_number"), table_name="feed")
    op.drop_table("feed")
    op.drop_index(op.f("ix_doomed_store_not_before_key"), table_name="doomed")
    op.drop_table("doomed")
    op.drop_index(op.f("ix_blobs_state_digest"), table_name="blobs")
    op.drop_table("blobs")
