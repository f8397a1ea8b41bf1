"""Upload sessions."""

import sqlalchemy as sa

from registry.metadata.tables.base import TEXT, DigestText, NameText, metadata

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", TEXT, primary_key=True),
    sa.Column("repository", NameText, nullable=False),
    # Null: the repository did not exist when the session began.
    sa.Column("repository_generation", TEXT),
    sa.Column("principal", TEXT, nullable=False),
    sa.Column("algorithm", TEXT, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    # The digest of the first `offset` bytes, where they were hashed without a gap.
    sa.Column("prefix", DigestText),
    sa.Column("store", TEXT, nullable=False),
    sa.Column("generation", TEXT, nullable=False),
    # The key the bytes may appear under: set, and committed, before they do.
    sa.Column("key", TEXT),
    # For stores that take bytes in parts: what each part is called there, as JSON of the store.
    sa.Column("parts", sa.Text),
    # Fencing for stores whose claims are rows: grows with each claim.
    sa.Column("claim", sa.BigInteger, nullable=False),
    # Until when such a claim keeps others out; null: nobody holds it.
    sa.Column("held_until", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("active_at", sa.BigInteger, nullable=False),
    sa.Index(None, "active_at"),
    # What sessions of some repositories have staged together is read from it alone.
    sa.Index(None, "repository", "offset"),
    # How many a principal has open.
    sa.Index(None, "principal", "active_at"),
)
