"""What may have to go, and what the collector knows."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, metadata

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
