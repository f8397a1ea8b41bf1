"""Registries that fetch blobs from an upstream, on each kind of store."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from registry.app import Runtime, open_runtime
from registry.config import load
from registry.services.content import upload_leases
from registry.services.mirrors import download
from storage.memory import MemoryDriver
from tests.support.servers.postgres import Cluster

Open = Callable[..., AbstractAsyncContextManager[Runtime]]


class UnreadableDriver(MemoryDriver):
    """A store whose staged bytes cannot be read, as in a bucket."""

    async def open_staged(self, session: str) -> None:
        del session


on_disk = pytest.mark.parametrize("place", ["sqlite-local"], indirect=True)
"""For tests of bytes that are read from the store while they arrive."""

spooling = pytest.mark.parametrize("place", ["sqlite-unreadable"], indirect=True)
"""For tests of temporary files."""


@pytest.fixture(params=["sqlite-local", "sqlite-unreadable", "postgres-s3"])
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dict[str, str]]:
    """Return the settings of a database and a store."""
    common = {"storage.min_free_space": "0B", "storage.part_size": "5MiB"}
    if request.param != "postgres-s3":
        (tmp_path / "moorage.db").write_bytes(sqlite_template.read_bytes())
        yield {**common, "storage.driver": "local" if "local" in request.param else "memory"}
        return
    monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 0.3)
    cluster: Cluster = request.getfixturevalue("postgres")
    bucket = request.getfixturevalue("bucket").overrides()
    with cluster.database() as url:
        yield {**common, "database.url": url, "storage.driver": "s3", **bucket}


@pytest.fixture
def start(tmp_path: Path, place: dict[str, str]) -> Open:
    """Open a registry. Another one shares the database and the store, as another process does."""
    memory = UnreadableDriver() if place["storage.driver"] == "memory" else None

    @asynccontextmanager
    async def opened(**overrides: str) -> AsyncIterator[Runtime]:
        keys = {key.replace("__", "."): value for key, value in overrides.items()}
        settings = load(config=None, data=tmp_path, overrides={**place, **keys}, environ={})
        async with open_runtime(settings, memory) as runtime:
            yield runtime

    return opened


@pytest.fixture
async def opened(start: Open, anyio_backend: str) -> AsyncIterator[Runtime]:
    del anyio_backend
    async with start() as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES_S", (0.01,) * len(download.PAUSES_S))
