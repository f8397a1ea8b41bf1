"""Open databases for the tests of `registry.metadata`."""

from collections.abc import AsyncIterator

import pytest

from registry.metadata.database import Database


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
