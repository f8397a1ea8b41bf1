"""Settings of a process's PostgreSQL connections."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Number of connections, and whether a pooler is used.

    `transaction_pooling`: connections lead to a pooler that may give each transaction a different
    session of the server, such as PgBouncer with `pool_mode = transaction`.
    """

    readers: int = 5
    writers: int = 3
    transaction_pooling: bool = False


DEFAULT = PoolSettings()
