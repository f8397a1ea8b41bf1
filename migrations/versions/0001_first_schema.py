"""First schema.

Docs: docs/reference/data-model.md.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def text_keys(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, TEXT, primary_key=True) for name in names]


def texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, TEXT, nullable=False) for name in names]


def optional_texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, TEXT) for name in names]


def integers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def optional_integers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger) for name in names]


def content_key(column: str, table: str, *, name: str) -> sa.ForeignKeyConstraint:
    """Return a foreign key to content of the same repository."""
    there = [f"{table}.repository_id", f"{table}.digest"]
    return sa.ForeignKeyConstraint(["repository_id", column], there, name=name)


def indexes(*columns: tuple[str, ...]) -> list[sa.Index]:
    return [sa.Index(None, *each) for each in columns]


def partial_index(name: str | None, *columns: str, where: str, unique: bool = False) -> sa.Index:
    condition = sa.text(where)
    return sa.Index(
        name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition
    )


def table(name: str, *items: sa.schema.SchemaItem) -> None:
    sa.Table(name, metadata, *items)


def table_with_id(name: str, *items: sa.schema.SchemaItem) -> None:
    """Define a table whose IDs are never used again."""
    sa.Table(
        name, metadata, sa.Column("id", ID, primary_key=True), *items, sqlite_autoincrement=True
    )


table_with_id(
    "users",
    sa.Column("name", TEXT, nullable=False, unique=True),
    sa.Column("is_admin", sa.Boolean, nullable=False),
    sa.Column("is_disabled", sa.Boolean, nullable=False),
    sa.Column("owns_namespace", sa.Boolean, nullable=False),
    *texts("generation"),
    *optional_texts("password_hash"),
    *integers("created_at"),
)
table_with_id(
    "groups", sa.Column("name", TEXT, nullable=False, unique=True), *integers("created_at")
)
table(
    "group_members",
    sa.Column("group_id", ID, sa.ForeignKey("groups.id"), primary_key=True),
    sa.Column("user_id", ID, sa.ForeignKey("users.id"), primary_key=True),
    *indexes(("user_id",)),
)
table_with_id(
    "robots",
    sa.Column("name", TEXT, nullable=False, unique=True),
    *texts("generation"),
    *integers("created_at"),
    *optional_integers("expires_at"),
)
table(
    "secrets",
    *text_keys("id"),
    sa.Column("user_id", ID, sa.ForeignKey("users.id")),
    sa.Column("robot_id", ID, sa.ForeignKey("robots.id")),
    sa.Column("scopes", sa.Text),
    *texts("name", "hash"),
    *integers("created_at"),
    *optional_integers("expires_at", "used_at"),
    sa.UniqueConstraint("user_id", "name"),
    *indexes(("robot_id",)),
)
table(
    "refresh_tokens",
    *text_keys("id"),
    *texts("hash", "credential", "service", "client"),
    *integers("created_at", "used_at"),
    *indexes(("credential", "used_at")),
)
table(
    "sign_in_failures",
    sa.Column("id", ID, primary_key=True),
    *texts("address", "account"),
    *integers("at"),
    *indexes(("address", "at"), ("account", "at"), ("at",)),
)
table_with_id(
    "grants",
    *texts("subject", "pattern", "actions"),
    *integers("created_at"),
    sa.UniqueConstraint("subject", "pattern"),
)
table("policy_revision", sa.Column("id", sa.Integer, primary_key=True), *integers("revision"))
table(
    "policy_changes",
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    *text_keys("part", "key"),
)
table(
    "removed_repositories",
    *text_keys("name"),
    *integers("policy_revision", "removed_at"),
    *indexes(("removed_at",)),
)
table(
    "signing_keys",
    *text_keys("kid"),
    sa.Column("jwk", sa.Text, nullable=False),
    *texts("state"),
    *integers("created_at", "changed_at"),
)
table("private_keys", *text_keys("name"), sa.Column("value", sa.LargeBinary, nullable=False))
table_with_id(
    "repositories",
    sa.Column("name", TEXT, nullable=False, unique=True),
    *texts("generation"),
    *integers("created_at"),
)
table(
    "blobs",
    *text_keys("digest"),
    *texts("store", "key", "state"),
    *integers("size", "created_at"),
    *indexes(("state", "digest"), ("store", "digest"), ("store", "key")),
)
table(
    "repository_blobs",
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", TEXT, sa.ForeignKey("blobs.digest"), primary_key=True),
    *integers("linked_at"),
    *indexes(("digest",)),
)
table_with_id(
    "manifests",
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), nullable=False),
    sa.Column("annotations", sa.Text),
    *texts("digest", "media_type"),
    *optional_texts("subject", "artifact_type"),
    *integers("size", "pushed_at"),
    *optional_integers("first_pushed_at"),
    sa.UniqueConstraint("repository_id", "digest"),
    *indexes(("repository_id", "subject", "digest")),
)
table(
    "manifest_bytes",
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id"), primary_key=True),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
)
table(
    "manifest_edges",
    sa.Column("manifest_id", ID, sa.ForeignKey("manifests.id"), primary_key=True),
    *text_keys("kind", "digest"),
    sa.Column("repository_id", ID, nullable=False),
    *optional_texts("blob_digest", "child_digest"),
    content_key("blob_digest", "repository_blobs", name="fk_manifest_edges_blob"),
    content_key("child_digest", "manifests", name="fk_manifest_edges_child"),
    *indexes(
        ("repository_id", "digest"),
        ("repository_id", "blob_digest"),
        ("repository_id", "child_digest"),
    ),
)
table(
    "tags",
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    *text_keys("name"),
    *texts("digest"),
    *integers("updated_at"),
    content_key("digest", "manifests", name="fk_tags_manifest"),
    *indexes(("repository_id", "digest", "name")),
)
table(
    "pull_times",
    sa.Column(
        "manifest_id", ID, sa.ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True
    ),
    *text_keys("tag"),
    *integers("pulled_at"),
)
table(
    "uploads",
    *text_keys("id"),
    sa.Column("parts", sa.Text),
    *texts("repository", "principal", "algorithm", "store", "generation"),
    *optional_texts("repository_generation", "prefix", "key"),
    *integers("offset", "claim", "started_at", "active_at"),
    *optional_integers("claimed_until"),
    *indexes(("active_at",), ("repository", "offset"), ("principal", "active_at")),
)
table(
    "pending_deletions",
    *text_keys("store", "key"),
    *texts("reason"),
    *integers("not_before"),
    *indexes(("store", "not_before", "key")),
)
table(
    "gc_queue",
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    *text_keys("kind", "digest"),
    *texts("parked_by"),
    *integers("grace_started_at"),
    *indexes(("parked_by", "grace_started_at", "repository_id", "kind", "digest")),
)
table(
    "gc_state",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    *texts("boot_id"),
    *integers("clock_offset", "clock_checked_at", "clock_jump"),
    *optional_integers("clock_jumped_at"),
)
table(
    "unreadable_manifests",
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    *text_keys("digest"),
    *integers("found_at"),
)
table_with_id(
    "holds",
    sa.Column("repository_id", ID, nullable=False),
    *texts("digest", "reason", "created_by"),
    *integers("created_at"),
    *optional_integers("expires_at"),
    content_key("digest", "manifests", name="fk_holds_manifest"),
    *indexes(("repository_id", "digest"), ("expires_at",)),
)
table_with_id(
    "immutable_tags",
    *texts("pattern", "tag_pattern", "created_by"),
    *integers("created_at"),
    sa.UniqueConstraint("pattern", "tag_pattern"),
)
table(
    "removed_manifests",
    *text_keys("repository", "digest", "generation"),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
    *texts("media_type", "blobs", "children", "removed_by"),
    *integers("removed_at"),
    *indexes(("removed_at",)),
)
table(
    "retention_rules",
    *text_keys("pattern"),
    sa.Column("enabled", sa.Boolean, nullable=False),
    *optional_texts("conditions"),
    *integers("changed_at"),
    *optional_integers("waits_until"),
)
table(
    "retention_run",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    *texts("last_repository"),
    *integers("started_at", "tags_dropped", "manifests_dropped"),
    *optional_integers("finished_at"),
)
table_with_id(
    "quotas",
    sa.Column("pattern", TEXT, nullable=False, unique=True),
    *optional_texts("recount_cursor"),
    *integers("limit_bytes", "created_at"),
)
table_with_id(
    "usage_counters",
    sa.Column("quota_id", ID, nullable=False),
    *texts("namespace"),
    *integers("checked_at"),
    sa.UniqueConstraint("quota_id", "namespace"),
    *indexes(("checked_at",)),
)
table(
    "usage_counter_repositories",
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("counter_id", ID, sa.ForeignKey("usage_counters.id"), primary_key=True),
    *indexes(("counter_id",)),
)
table(
    "usage_counter_blobs",
    sa.Column("counter_id", ID, primary_key=True, autoincrement=False),
    *text_keys("digest"),
    *integers("repository_count"),
)
table(
    "usage_counter_shards",
    sa.Column("counter_id", ID, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    *integers("bytes"),
)
table(
    "change_feed",
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    *texts("actor", "kind", "repository", "generation"),
    *optional_texts("digest", "tag", "old_digest"),
    *integers("at"),
    *indexes(("repository", "tag", "revision"), ("at",)),
    partial_index(None, "repository", "old_digest", "at", where="old_digest IS NOT NULL"),
    partial_index(None, "generation", where="kind = 'repository.delete'"),
)
table("change_feed_revision", sa.Column("id", sa.Integer, primary_key=True), *integers("revision"))
table_with_id(
    "audit_log",
    sa.Column("detail", sa.Text, nullable=False),
    *texts("actor", "address", "request_id", "kind", "target"),
    *optional_texts("merge_key"),
    *integers("at", "count"),
    partial_index(
        "ix_audit_log_merge_key", "merge_key", where="merge_key IS NOT NULL", unique=True
    ),
    *indexes(("actor", "id"), ("at",)),
)
table(
    "schema_version",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("min_reader", sa.Integer, nullable=False),
)
table(
    "write_freeze",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    *texts("state", "token", "peer"),
    *optional_integers("expires_at"),
)
table("leases", *text_keys("name"), *texts("holder"), *integers("expires_at"))
table(
    "scrub_state",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("is_running", sa.Boolean, nullable=False),
    *optional_texts("last_blob"),
    *integers("started_at", "blobs", "bytes", "damaged", "unreadable"),
    *optional_integers("finished_at", "last_manifest_id"),
)


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    op.execute("INSERT INTO schema_version (id, version, min_reader) VALUES (1, 1, 1)")
    op.execute("INSERT INTO change_feed_revision (id, revision) VALUES (1, 0)")
    op.execute("INSERT INTO policy_revision (id, revision) VALUES (1, 0)")
    op.execute(
        "INSERT INTO gc_state (id, boot_id, clock_offset, clock_checked_at, clock_jump) "
        "VALUES (1, '', 0, 0, 0)"
    )


def downgrade() -> None:
    metadata.drop_all(op.get_bind())
