"""What the database is under, and what its jobs know."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, DigestText, metadata

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

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
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
