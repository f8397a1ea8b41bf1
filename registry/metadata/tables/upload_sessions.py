"""The table of upload sessions."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, DigestText, NameText, metadata

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("repository", NameText, nullable=False),
    # Null if the repository did not exist when the session began.
    sa.Column("repository_generation", TEXT),
    sa.Column("principal", TEXT, nullable=False),
    sa.Column("algorithm", TEXT, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    # The digest of the first `offset` bytes, if all of them were hashed.
    sa.Column("prefix", DigestText),
    sa.Column("store", TEXT, nullable=False),
    sa.Column("generation", TEXT, nullable=False),
    # The key under which the bytes may appear; committed before they do.
    sa.Column("key", TEXT),
    # The state of stores that take bytes in parts, as JSON of the store.
    sa.Column("parts", sa.Text),
    # Fencing token for stores whose claims are rows: grows with each claim.
    sa.Column("claim", sa.BigInteger, nullable=False),
    # End of the claim; null if the session is not claimed.
    sa.Column("claimed_until", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("active_at", sa.BigInteger, nullable=False),
    sa.Index(None, "active_at"),
    # Covering index for the bytes staged by the sessions of some repositories.
    sa.Index(None, "repository", "offset"),
    # Counts the open sessions of a principal.
    sa.Index(None, "principal", "active_at"),
)
