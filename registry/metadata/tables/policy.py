"""Tables of the access policy and of signing keys."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, NameText, metadata

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

# One row: the revision of the last policy change, updated in the transaction of the change.
policy_revision = sa.Table(
    "policy_revision",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

# The parts of the policy that each revision changed, for processes that have an earlier policy.
policy_changes = sa.Table(
    "policy_changes",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", TEXT, primary_key=True),
    sa.Column("key", TEXT, primary_key=True),
)

# The last removal of each repository name. Tokens issued before are not valid for the next
# repository of that name.
removed_repositories = sa.Table(
    "removed_repositories",
    metadata,
    sa.Column("name", NameText, primary_key=True),
    sa.Column("policy_revision", sa.BigInteger, nullable=False),
    sa.Column("removed_at", sa.BigInteger, nullable=False),
    sa.Index(None, "removed_at"),
)

# Public halves of signing keys. The private halves are in the key store.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("kid", TEXT, primary_key=True),
    sa.Column("jwk", sa.Text, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

# Key store: encrypted private keys that replicas share.
private_keys = sa.Table(
    "private_keys",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
