"""Tables of the synchronization of mirrors."""

import sqlalchemy as sa

from registry.metadata.tables.base import ID, TEXT, DigestText, NameText, metadata

# A schedule: a mirror is synchronized each `every` microseconds.
sync_schedules = sa.Table(
    "sync_schedules",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("mirror", TEXT, nullable=False),
    # A JSON object (registry/services/syncs/options.py).
    sa.Column("options", TEXT, nullable=False),
    sa.Column("every", sa.BigInteger, nullable=False),
    # By the database's clock.
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index(None, "next_at"),
    sa.Index(None, "mirror"),
    sqlite_autoincrement=True,
)

# A run, which is waiting, running or has ended.
sync_runs = sa.Table(
    "sync_runs",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("mirror", TEXT, nullable=False),
    # Null for a run on demand.
    sa.Column("schedule_id", ID),
    sa.Column("options", TEXT, nullable=False),
    sa.Column("state", TEXT, nullable=False),
    # JSON objects (registry/services/syncs/report.py).
    sa.Column("progress", TEXT, nullable=False),
    sa.Column("report", TEXT, nullable=False),
    sa.Column("created_by", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Index(None, "mirror", "id"),
    sa.Index(None, "ended_at"),
    sqlite_autoincrement=True,
)

# Tags that a sync has set, which are the only ones that it may delete.
synced_tags = sa.Table(
    "synced_tags",
    metadata,
    sa.Column("repository", NameText, primary_key=True),
    sa.Column("tag", TEXT, primary_key=True),
    sa.Column("digest", DigestText, nullable=False),
)
