"""Settings of the database. Every command imports this module, so it imports nothing slow."""

from dataclasses import dataclass, field
from typing import Annotated

from registry.database_url import DatabaseUrl
from registry.units import Count, Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """`[database]`: the metadata database."""

    url: Annotated[
        DatabaseUrl, "SQLAlchemy URL. Empty: the SQLite file `moorage.db` in the data directory."
    ] = field(default="", repr=False)
    read_connections: Annotated[
        Count, "Maximum number of connections to PostgreSQL for reads, for each process."
    ] = 5
    write_connections: Annotated[
        Count, "Maximum number of connections to PostgreSQL for writes, for each process."
    ] = 3
    transaction_pooling: Annotated[
        Flag, "Whether a pooler such as PgBouncer may change the session after each transaction."
    ] = False


DEFAULT = DatabaseSettings()
"""The default settings."""
