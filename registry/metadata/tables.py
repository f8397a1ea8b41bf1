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

# At most one row: what `moorage db copy` is doing to this database, or has done. While there is
# one, triggers on the other tables refuse every change (registry/metadata/moves.py).
moves = sa.Table(
    "moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", TEXT, nullable=False),
    # Who copies: a run of the command that lost its lease can tell.
    sa.Column("token", TEXT, nullable=False),
    # The other database, without its password.
    sa.Column("place", TEXT, nullable=False),
    # When a pause ends whose command died, in microseconds; null: never.
    sa.Column("until", sa.BigInteger),
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

# When a manifest was last pulled by a tag, and, where `tag` is empty, by its digest. Apart from the
# manifest and the tag, whose rows pushes lock. Older code deletes manifests and knows no such rows,
# so they go by themselves.
pulls = sa.Table(
    "pulls",
    metadata,
    sa.Column(
        "manifest_id", ID, sa.ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("tag", TEXT, primary_key=True),
    sa.Column("pulled_at", sa.BigInteger, nullable=False),
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
    # For stores that take bytes in parts: what each part is called there, as JSON of the store.
    sa.Column("parts", sa.Text),
    # Fencing for stores whose claims are rows: grows with each claim.
    sa.Column("claim", sa.BigInteger, nullable=False),
    # Until when such a claim keeps others out; null: nobody holds it.
    sa.Column("held_until", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("active_at", sa.BigInteger, nullable=False),
    sa.Index(None, "active_at"),
    # What sessions of some repositories have staged together is read from it alone.
    sa.Index(None, "repository", "offset"),
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

# What may have to go: queued in the transaction that drops a reference to it, or makes it without
# one. Whatever nothing refers to has a row here; a row says no more than "look at it".
candidates = sa.Table(
    "candidates",
    metadata,
    # 0: a blob, which is of no repository.
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    # From when its grace counts, by the database's clock.
    sa.Column("since", sa.BigInteger, nullable=False),
    # The fingerprint of the rules by which it stays for good; empty: it is to be looked at.
    sa.Column("parked", TEXT, nullable=False),
    sa.Index(None, "parked", "since", "repository_id", "kind", "digest"),
)

# One row: how far the collector is, and what it knows of the clock.
collector = sa.Table(
    "collector",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    # Which start of which machine looked last, and how far the database's clock was ahead of what
    # had gone by since that start, when it looked first.
    sa.Column("boot", TEXT, nullable=False),
    sa.Column("ahead", sa.BigInteger, nullable=False),
    # The last look, by the database's clock.
    sa.Column("clock", sa.BigInteger, nullable=False),
    # When the database's clock was last seen to have jumped, and by how much.
    sa.Column("jumped_at", sa.BigInteger),
    sa.Column("jump", sa.BigInteger, nullable=False),
    # How far the walk through what was there before the queue has come; null: it is over.
    sa.Column("filling", TEXT),
    # When the queue began to be kept.
    sa.Column("fill_since", sa.BigInteger, nullable=False),
)

# Manifests whose bytes cannot be read, so that nobody knows what they name: nothing of their
# repositories is collected.
unreadable = sa.Table(
    "unreadable",
    metadata,
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("found_at", sa.BigInteger, nullable=False),
)

# What keeps a manifest whoever wants it to go. The foreign key refuses its deletion by older code
# too, which asks nobody.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("repository_id", ID, nullable=False),
    sa.Column("digest", DigestText, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # By the database's clock; null: never.
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

# Which tags of the repositories of a pattern cannot be moved or deleted.
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

# Manifests that were deleted, so that a mistake can be taken back for a grace.
removed_manifests = sa.Table(
    "removed_manifests",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("generation", TEXT, primary_key=True),
    sa.Column("media_type", TEXT, nullable=False),
    sa.Column("bytes", sa.LargeBinary, nullable=False),
    # The digests of the blobs and of the manifests of the repository that it was tied to, between
    # spaces: it had been proved that they belong to it.
    sa.Column("blobs", TEXT, nullable=False),
    sa.Column("children", TEXT, nullable=False),
    sa.Column("removed_by", TEXT, nullable=False),
    # By the database's clock.
    sa.Column("removed_at", sa.BigInteger, nullable=False),
    sa.Index(None, "removed_at"),
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
    # When tags left a manifest. Most changes are none of that, and take no room in it.
    sa.Index(
        None,
        "repository",
        "old_digest",
        "at",
        sqlite_where=sa.text("old_digest IS NOT NULL"),
        postgresql_where=sa.text("old_digest IS NOT NULL"),
    ),
    # When a repository ended, and all its tags with it.
    sa.Index(
        None,
        "generation",
        sqlite_where=sa.text("kind = 'repository.delete'"),
        postgresql_where=sa.text("kind = 'repository.delete'"),
    ),
)

# One row: the number of the last change. Taken as the last statement of each transaction.
feed_head = sa.Table(
    "feed_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

# At most one row: how far the re-reading of all blobs is, or how it ended.
scrub = sa.Table(
    "scrub",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("running", sa.Boolean, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # When the last whole pass ended; null: none has.
    sa.Column("finished_at", sa.BigInteger),
    # The last blob and the last manifest that were read; the next are those after them.
    sa.Column("last", DigestText),
    sa.Column("last_manifest", sa.BigInteger),
    # Of this pass so far.
    sa.Column("blobs", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("damaged", sa.BigInteger, nullable=False),
    sa.Column("unreadable", sa.BigInteger, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", TEXT, nullable=False, unique=True),
    # A PHC string (argon2id), or bcrypt as an htpasswd file had it; null: no password signs in.
    sa.Column("password", TEXT),
    # What signs a user in names this; a new one ends every session and token at once.
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", TEXT, nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

group_members = sa.Table(
    "group_members",
    metadata,
    sa.Column("group_id", ID, sa.ForeignKey("groups.id"), primary_key=True),
    sa.Column("user_id", ID, sa.ForeignKey("users.id"), primary_key=True),
    sa.Index(None, "user_id"),
)

robots = sa.Table(
    "robots",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", TEXT, nullable=False, unique=True),
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sqlite_autoincrement=True,
)

# Secrets made by the registry: personal access tokens of users, secrets of robots. Of 256 random
# bits a keyed hash is all that is kept, and all that is needed: they cannot be guessed.
secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("user_id", ID, sa.ForeignKey("users.id")),
    sa.Column("robot_id", ID, sa.ForeignKey("robots.id")),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("hash", TEXT, nullable=False),
    # What the secret is good for at most, as JSON; null: all that its owner may do.
    sa.Column("scopes", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("used_at", sa.BigInteger),
    sa.UniqueConstraint("user_id", "name"),
    sa.Index(None, "robot_id"),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("hash", TEXT, nullable=False),
    # What was signed in with: the token is worth something while that is.
    sa.Column("credential", TEXT, nullable=False),
    sa.Column("service", TEXT, nullable=False),
    sa.Column("client", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("used_at", sa.BigInteger, nullable=False),
    sa.Index(None, "credential", "used_at"),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("subject", TEXT, nullable=False),
    sa.Column("pattern", TEXT, nullable=False),
    sa.Column("actions", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("subject", "pattern"),
    sqlite_autoincrement=True,
)

# The public half; the private one is in the vault.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("kid", TEXT, primary_key=True),
    sa.Column("jwk", sa.Text, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

# Private keys, encrypted, where replicas share them (design D12).
vault = sa.Table(
    "vault",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

# One row: grows with every change of who may do what, in the change's own transaction.
policy_head = sa.Table(
    "policy_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

# When a name last lost its repository: tokens from before are not good for the next one.
removed_repositories = sa.Table(
    "removed_repositories",
    metadata,
    sa.Column("name", NameText, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("removed_at", sa.BigInteger, nullable=False),
    sa.Index(None, "removed_at"),
)

# For the limits alone, so `account` is a keyed hash: people type passwords where names belong.
sign_in_failures = sa.Table(
    "sign_in_failures",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("address", TEXT, nullable=False),
    sa.Column("account", TEXT, nullable=False),
    sa.Index(None, "address", "at"),
    sa.Index(None, "account", "at"),
    sa.Index(None, "at"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", ID, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("address", TEXT, nullable=False),
    sa.Column("request_id", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("target", TEXT, nullable=False),
    # JSON; never a secret.
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index(None, "actor", "number"),
    sa.Index(None, "at"),
    sqlite_autoincrement=True,
)

# What is kept and what is dropped in the repositories of a pattern. Ages in microseconds; null:
# there is no such rule.
retention_rules = sa.Table(
    "retention_rules",
    metadata,
    sa.Column("pattern", TEXT, primary_key=True),
    # Patterns of tags, between spaces, which they cannot have.
    sa.Column("keep", TEXT, nullable=False),
    sa.Column("keep_newest", sa.BigInteger),
    sa.Column("newest_by", TEXT, nullable=False),
    sa.Column("keep_per_minor", sa.BigInteger),
    # As `keep`.
    sa.Column("drop", TEXT, nullable=False),
    sa.Column("drop_not_pulled", sa.BigInteger),
    sa.Column("drop_untagged", sa.BigInteger),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

# At most one row: the last run of the rules over all repositories, or the one under way.
retention_run = sa.Table(
    "retention_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # Null: it is under way.
    sa.Column("ended_at", sa.BigInteger),
    # The last repository that is done.
    sa.Column("done", TEXT, nullable=False),
    # How many were dropped.
    sa.Column("tags", sa.BigInteger, nullable=False),
    sa.Column("manifests", sa.BigInteger, nullable=False),
)

# How many bytes of distinct blobs the repositories of a pattern may have.
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
    sa.UniqueConstraint("quota_id", "namespace"),
    sqlite_autoincrement=True,
)

# The repository's blobs are counted in the tally. Changed only by who holds the repository alone.
tally_repositories = sa.Table(
    "tally_repositories",
    metadata,
    sa.Column("repository_id", ID, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("tally_id", ID, sa.ForeignKey("tallies.id"), primary_key=True),
    sa.Index(None, "tally_id"),
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
