"""Tables of accounts and their credentials."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", TEXT, nullable=False, unique=True),
    # A PHC string (argon2id), or a bcrypt hash from an htpasswd file; null if the user has no
    # password.
    sa.Column("password_hash", TEXT),
    # Credentials refer to this value. A new value ends all sessions and tokens of the user.
    sa.Column("generation", TEXT, nullable=False),
    sa.Column("is_admin", sa.Boolean, nullable=False),
    sa.Column("is_disabled", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # False if repositories of a previous owner existed below the name when the user was added.
    sa.Column("owns_namespace", sa.Boolean, nullable=False),
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

# Secrets created by the registry: personal access tokens and robot secrets. A secret has 256 random
# bits and cannot be guessed, so a keyed hash is enough to verify it.
secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("user_id", ID, sa.ForeignKey("users.id")),
    sa.Column("robot_id", ID, sa.ForeignKey("robots.id")),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("hash", TEXT, nullable=False),
    # Upper bound of the secret's permissions, as JSON; null if it has all those of its owner.
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
    # The credential used to sign in. The token is valid only while that credential is.
    sa.Column("credential", TEXT, nullable=False),
    sa.Column("service", TEXT, nullable=False),
    sa.Column("client", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("used_at", sa.BigInteger, nullable=False),
    sa.Index(None, "credential", "used_at"),
)

# Used for rate limits only. `account` is a keyed hash, because people type passwords into the name
# field.
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
