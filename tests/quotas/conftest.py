"""A registry with quotas, on either database and with its blobs in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from registry.app import asgi, compose
from registry.config import load
from registry.metadata.database import Database
from tests.api.conftest import Api, in_process

Start = Callable[[], AbstractAsyncContextManager[Api]]


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
async def api(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Api]:
    """An application whose jobs the test runs itself."""
    del anyio_backend

    @asynccontextmanager
    async def start() -> AsyncIterator[Api]:
        overrides = {
            "database.url": database_url,
            "storage.driver": "memory",
            "jobs.in_serve": "false",
        }
        settings = load(config=None, data=tmp_path, overrides=overrides, environ={})
        opened = compose(settings)
        async with in_process(asgi(settings, opened)) as http:
            yield Api(http, opened, settings)

    async with start() as started:
        yield started
