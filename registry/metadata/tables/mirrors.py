"""Tables of mirrors: other registries whose content this one caches."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, DigestText, NameText, metadata

# An upstream registry, whose repositories appear below `prefix`.
mirrors = sa.Table(
    "mirrors",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("prefix", NameText, nullable=False, unique=True),
    sa.Column("url", TEXT, nullable=False),
    # A JSON object (registry/services/mirrors/options.py).
    sa.Column("options", TEXT, nullable=False),
    # Null if the options name its source, or for anonymous access.
    sa.Column("password", TEXT),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    # Set if this is the default mirror: the requests that go to it, `names` or `all`.
    sa.Column("default_for", TEXT),
)

# Tags of mirrored repositories, as the upstream last confirmed them.
mirror_tags = sa.Table(
    "mirror_tags",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("tag", TEXT, primary_key=True),
    sa.Column("digest", DigestText, nullable=False),
    # By the database's clock.
    sa.Column("checked_at", sa.BigInteger, nullable=False),
)

# The digests of tags of mirrored repositories. The upstream was first seen to name each at
# `first_seen_at`, by the database's clock.
mirror_tag_history = sa.Table(
    "mirror_tag_history",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("tag", TEXT, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("first_seen_at", sa.BigInteger, nullable=False),
)

# The bytes of a mirror when they were last measured, by the database's clock.
mirror_usage = sa.Table(
    "mirror_usage",
    metadata,
    sa.Column("mirror", TEXT, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("measured_at", sa.BigInteger, nullable=False),
    # 1 while an eviction has begun and is not done.
    sa.Column("is_evicting", sa.Integer, nullable=False),
)
