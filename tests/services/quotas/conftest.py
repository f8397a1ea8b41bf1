"""A registry with quotas, on either database and with its blobs in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.app import compose
from registry.app.asgi import create_app
from registry.config import load
from registry.metadata.engine import migrate
from tests.api.conftest import Api, in_process
from tests.support.servers.seaweed import Bucket


@asynccontextmanager
async def _start(data: Path, url: str, store: dict[str, str]) -> AsyncIterator[Api]:
    """Start an application whose jobs the test runs itself."""
    overrides = {"database.url": url, "jobs.in_serve": "false", **store}
    settings = load(config=None, data=data, overrides=overrides, environ={})
    opened = compose(settings)
    async with in_process(create_app(settings, opened)) as http:
        yield Api(http, opened, settings)


@pytest.fixture
async def api(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Api]:
    del anyio_backend
    async with _start(tmp_path, database_url, {"storage.driver": "memory"}) as started:
        yield started


@pytest.fixture
async def other(database_url: str, tmp_path: Path, api: Api) -> AsyncIterator[Api]:
    """Yield another worker or replica of the registry of `api`, on the same database."""
    del api
    async with _start(tmp_path, database_url, {"storage.driver": "memory"}) as started:
        yield started


@pytest.fixture
async def on_s3(tmp_path: Path, bucket: Bucket, anyio_backend: str) -> AsyncIterator[Api]:
    """Yield a registry on a bucket: claims are rows, and parts are stored at once."""
    del anyio_backend
    url = f"sqlite:///{tmp_path}/moorage.db"
    migrate.upgrade(url)
    async with _start(tmp_path, url, {"storage.driver": "s3", **bucket.overrides()}) as started:
        yield started
