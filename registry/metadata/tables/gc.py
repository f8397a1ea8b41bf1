"""Tables of the garbage collector: its queues and its state."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, metadata

# Pending deletions: keys that are losing or have lost their row. A job deletes their bytes, then
# the row.
pending_deletions = sa.Table(
    "pending_deletions",
    metadata,
    sa.Column("store", TEXT, primary_key=True),
    sa.Column("key", TEXT, primary_key=True),
    sa.Column("not_before", sa.BigInteger, nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Index(None, "store", "not_before", "key"),
)

# The garbage collection queue. A row is added by the transaction that drops a reference to an item,
# or creates an item without one. Every item without a retainer has a row; a row means only that the
# item has to be examined.
gc_queue = sa.Table(
    "gc_queue",
    metadata,
    # 0 for a blob, which belongs to no repository.
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("digest", DigestText, primary_key=True),
    # Start of the grace period, by the database's clock.
    sa.Column("grace_started_at", sa.BigInteger, nullable=False),
    # Fingerprint of the rules that retain the item permanently; empty if it has to be examined.
    sa.Column("parked_by", TEXT, nullable=False),
    sa.Index(None, "parked_by", "grace_started_at", "repository_id", "kind", "digest"),
)

# One row: the collector's progress, and its record of the clock.
gc_state = sa.Table(
    "gc_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    # Boot ID of the machine that checked the clock last, and the difference between the database's
    # clock and the time since that boot, as measured at the machine's first check.
    sa.Column("boot_id", TEXT, nullable=False),
    sa.Column("clock_offset", sa.BigInteger, nullable=False),
    # Time of the last clock check, by the database's clock.
    sa.Column("clock_checked_at", sa.BigInteger, nullable=False),
    # Time and size of the last jump of the database's clock.
    sa.Column("clock_jumped_at", sa.BigInteger),
    sa.Column("clock_jump", sa.BigInteger, nullable=False),
)

# Manifests whose bytes cannot be read, so that it is unknown what they reference. Nothing in their
# repositories is collected.
unreadable_manifests = sa.Table(
    "unreadable_manifests",
    metadata,
    sa.Column("repository_id", ID, primary_key=True, autoincrement=False),
    sa.Column("digest", DigestText, primary_key=True),
    sa.Column("found_at", sa.BigInteger, nullable=False),
)
