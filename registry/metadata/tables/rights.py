"""Who may do what, and the keys that sign it."""

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

# One row: grows with every change of who may do what, in the change's own transaction.
policy_head = sa.Table(
    "policy_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

# What each of those numbers changed, for processes that know the policy of a number before.
policy_changes = sa.Table(
    "policy_changes",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", TEXT, primary_key=True),
    sa.Column("key", TEXT, primary_key=True),
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
