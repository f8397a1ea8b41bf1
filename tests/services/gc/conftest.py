"""A registry in this process, with helpers that age its rows."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.app import Runtime, compose
from registry.app.asgi import create_app
from registry.config import load
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc.queue import SECOND
from registry.services.gc.batch import GcReport
from storage.digest import Digest
from tests.api.conftest import in_process
from tests.support.clock import Clocks
from tests.support.kit import Kit, list_stored

GRACE = 86_400.0


@dataclass(frozen=True)
class Yard(Kit):
    """A client of a registry whose jobs do not run, with direct access to the registry."""

    opened: Runtime

    async def age(self, seconds: float = GRACE) -> None:
        """Move the times of all queued, removed and expiring rows back by `seconds`."""
        columns = (
            tables.gc_queue.c.grace_started_at,
            tables.removed_manifests.c.removed_at,
            tables.holds.c.expires_at,
        )

        def work(tx: Transaction) -> None:
            for column in columns:
                earlier = {column.name: column - int(seconds * SECOND)}
                tx.execute(sa.update(column.table).values(earlier))

        await self.opened.database.write(work, actor="test")

    async def collect(self) -> GcReport:
        """Collect what is due, and delete the bytes of the collected blobs."""
        tally = GcReport()
        while await self.opened.registry.collector.collect(tally):
            pass
        while await self.opened.registry.deletions.sweep():
            pass
        return tally

    async def exhaust(self) -> GcReport:
        """Collect until another grace period changes nothing more."""
        tally = GcReport()
        while True:
            await self.age()
            before = tally.manifests, tally.blobs, len(await self.list_rows(tables.gc_queue))
            some = await self.collect()
            tally.manifests += some.manifests
            tally.blobs += some.blobs
            tally.bytes += some.bytes
            after = tally.manifests, tally.blobs, len(await self.list_rows(tables.gc_queue))
            if before == after:
                return tally

    async def has_blob(self, name: str, digest: Digest) -> bool:
        """Return whether the repository links the blob, without touching the blob."""
        answer = await self.http.get(f"/v2/{name}/blobs/{digest}", headers={"Range": "bytes=0-0"})
        return answer.status_code == 206

    async def has_manifest(self, name: str, reference: object) -> bool:
        answer = await self.http.get(f"/v2/{name}/manifests/{reference}")
        return answer.status_code == 200

    async def list_rows(self, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        return await self.opened.database.read(lambda tx: list(tx.execute(sa.select(table))))

    async def count_rows(self) -> dict[str, int]:
        """Count the rows of each table that garbage collection deletes from."""
        content = (tables.repositories, tables.manifests, tables.repository_blobs, tables.blobs)
        return {table.name: len(await self.list_rows(table)) for table in content}

    def list_stored(self) -> list[str]:
        return list_stored(self.opened.driver)


Opening = Callable[..., AbstractAsyncContextManager[Yard]]


@pytest.fixture
def open_yard(database_url: str, tmp_path: Path) -> Opening:
    """Return an opener of registries with given settings, such as `{"gc.untagged": "delete"}`."""

    @asynccontextmanager
    async def opening(overrides: dict[str, str] | None = None) -> AsyncIterator[Yard]:
        settings = load(
            config=None,
            data=tmp_path,
            overrides={
                "database.url": database_url,
                "storage.driver": "local",
                "storage.min_free_space": "0B",
                "jobs.in_serve": "false",
                **(overrides or {}),
            },
            environ={},
        )
        opened = compose(settings)
        async with in_process(create_app(settings, opened)) as http:
            yield Yard(http, opened)

    return opening


@pytest.fixture
async def yard(open_yard: Opening) -> AsyncIterator[Yard]:
    async with open_yard() as opened:
        yield opened


@pytest.fixture
async def sweeping(open_yard: Opening) -> AsyncIterator[Yard]:
    """Yield a registry that deletes untagged manifests."""
    async with open_yard({"gc.untagged": "delete"}) as opened:
        yield opened


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Return clocks that the test sets."""
    return Clocks(monkeypatch)
