"""Tests of the objects that a power cut leaves without an owner."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry import clock
from registry.metadata import tables
from registry.metadata.content import blobs, repositories
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.content.unowned_objects import UnownedObjects
from storage.digest import Digest
from storage.keys import blob_key
from storage.local.driver import LocalDriver
from storage.stores import Stores
from tests.metadata.rows import NAME, rows

pytestmark = pytest.mark.anyio

LOST, KEPT = Digest.of(b"lost"), Digest.of(b"kept")
SESSION = "00000000-0000-4000-8000-00000000000"
HOUR_US = 3_600_000_000


@pytest.fixture
async def driver(tmp_path: Path, anyio_backend: str) -> AsyncIterator[LocalDriver]:
    del anyio_backend
    opened = LocalDriver(tmp_path / "storage")
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
async def key(driver: LocalDriver, database: Database) -> str:
    """Publish the bytes of two blobs, of which only one gets a row. Return the other's key."""
    for number, digest in enumerate((LOST, KEPT)):
        upload = await driver.claim(f"{SESSION}{number}")
        await upload.append(b"data", None)
        await upload.finish(blob_key(digest, "0"))

    def link(tx: Transaction) -> None:
        blobs.put(tx, BlobRow(KEPT, 4, driver.name, blob_key(KEPT, "0"), BlobState.LIVE))
        blobs.link(tx, repositories.ensure(tx, NAME), KEPT)

    await database.write(link, actor="ann")
    return blob_key(LOST, "0")


def set_boot(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the machine have started at `at`, in microseconds."""
    monkeypatch.setattr(clock, "boottime_us", lambda: clock.now_us() - at)


async def list_queued(database: Database) -> list[str]:
    return [row.key for row in await rows(database, tables.pending_deletions)]


async def test_object_is_deleted_after_a_restart_of_the_machine(
    database: Database, driver: LocalDriver, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_boot(monkeypatch, clock.now_us() + 1)
    unowned = UnownedObjects(database, Stores(driver))
    is_searched = database.embedded
    assert await unowned.queue() == int(is_searched)
    assert await list_queued(database) == [key] * is_searched
    assert await unowned.queue() == 0


async def test_object_may_get_an_owner_while_the_machine_runs(
    database: Database, driver: LocalDriver, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that runs may not have committed the row yet."""
    del key
    set_boot(monkeypatch, clock.now_us() - HOUR_US)
    assert await UnownedObjects(database, Stores(driver)).queue() == 0
    assert await list_queued(database) == []


async def test_objects_before_the_last_change_have_owners(
    database: Database, driver: LocalDriver, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del key
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now + HOUR_US)
    later = Digest.of(b"later")

    def link(tx: Transaction) -> None:
        tx.now = now + HOUR_US
        blobs.put(tx, BlobRow(later, 5, driver.name, blob_key(later, "0"), BlobState.LIVE))
        blobs.link(tx, repositories.ensure(tx, NAME), later)

    await database.write(link, actor="ann")
    set_boot(monkeypatch, now + 2 * HOUR_US)
    assert [page async for page in driver.iter_objects(now + HOUR_US)] == []
    assert await UnownedObjects(database, Stores(driver)).queue() == 0
