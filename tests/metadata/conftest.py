"""Open databases for the tests of `registry.metadata`."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from registry.metadata.database import Database
from registry.metadata.transaction import Transaction


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def replicas(database_url: str, anyio_backend: str) -> AsyncIterator[list[Database]]:
    """Two processes' worth of one database: on PostgreSQL 16 transactions run at once."""
    del anyio_backend
    opened = [Database(database_url), Database(database_url)]
    yield opened
    for database in opened:
        await database.close()


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test says what time it is, by setting `tx.now`."""
    monkeypatch.setattr(Transaction, "read_clock", lambda tx: sa.literal(tx.now))
