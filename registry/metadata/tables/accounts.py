"""Who signs in, and with what."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, metadata

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
    # False: repositories were below the name when the user was added, which somebody else left.
    sa.Column("namespace", sa.Boolean, nullable=False, server_default=sa.true()),
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
