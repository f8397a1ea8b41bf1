"""Tables of the schema version, database copies, leases and the scrub."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, DigestText, metadata

schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("min_reader", sa.Integer, nullable=False),
)

# At most one row: the current or last `moorage db copy` of this database. While it exists, triggers
# on the other tables refuse every change (registry/metadata/engine/write_freeze.py).
write_freeze = sa.Table(
    "write_freeze",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", TEXT, nullable=False),
    # Identifies the run of the command, so that it notices if it has lost its lease.
    sa.Column("token", TEXT, nullable=False),
    # The other database, without its password.
    sa.Column("peer", TEXT, nullable=False),
    # End of the write freeze if the command died, in microseconds; null if it is permanent.
    sa.Column("expires_at", sa.BigInteger),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("holder", TEXT, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
)

# At most one row: the progress or the result of the scrub, which re-reads all manifests and blobs.
scrub_state = sa.Table(
    "scrub_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("is_running", sa.Boolean, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # End of the last complete pass; null if there is none.
    sa.Column("finished_at", sa.BigInteger),
    # The last blob and the last manifest that were read.
    sa.Column("last_blob", DigestText),
    sa.Column("last_manifest_id", sa.BigInteger),
    # Counts of the current pass.
    sa.Column("blobs", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("damaged", sa.BigInteger, nullable=False),
    sa.Column("unreadable", sa.BigInteger, nullable=False),
)
