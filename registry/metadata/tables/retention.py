"""Tables of retention rules and their last run."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, metadata

# The retention rules of a pattern of repositories.
retention_rules = sa.Table(
    "retention_rules",
    metadata,
    sa.Column("pattern", TEXT, primary_key=True),
    # A JSON object (registry/services/retention/conditions.py). Null is the rest of removed rules,
    # kept until `waits_until`.
    sa.Column("conditions", TEXT),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    # If false, the rules keep but drop nothing.
    sa.Column("enabled", sa.Boolean, nullable=False),
    # Nothing is dropped in the repositories of the pattern before this time, by the database's
    # clock.
    sa.Column("waits_until", sa.BigInteger),
)

# At most one row: the last run of the rules over all repositories, or the current one.
retention_run = sa.Table(
    "retention_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # Null while the run is in progress.
    sa.Column("finished_at", sa.BigInteger),
    # The last processed repository.
    sa.Column("last_repository", TEXT, nullable=False),
    # Numbers of dropped items.
    sa.Column("tags_dropped", sa.BigInteger, nullable=False),
    sa.Column("manifests_dropped", sa.BigInteger, nullable=False),
)
