"""An open database with retention on it."""

from collections.abc import AsyncIterator

import pytest

from registry.metadata.database import Database
from registry.services.retention import Retention


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database, interval=3600, grace=3600)
