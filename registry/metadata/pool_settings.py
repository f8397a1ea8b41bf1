"""How many connections to PostgreSQL a process opens, and what stands between."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`transaction_pooling`: connections lead to a pooler that gives each transaction another
    session of the server, such as PgBouncer with `pool_mode = transaction`.
    """

    readers: int = 5
    writers: int = 3
    transaction_pooling: bool = False


DEFAULT = PoolSettings()
