"""Pending deletions: one failure delays no other deletion, and no entry is dropped too early."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.gc.deletions import PAUSE_S, DeletionQueue
from storage.errors import StoreUnavailableError
from storage.local.driver import LocalDriver
from storage.stores import Stores
from tests.metadata.rows import rows
from tests.support.clock import MovableClock

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = (f"blobs/sha256/{n}{n}/{n}" for n in "123")


class Deletions:
    """A store on disk and its pending deletions."""

    def __init__(self, database: Database, driver: LocalDriver) -> None:
        self.database, self.driver = database, driver
        self.service = DeletionQueue(database, Stores(driver))

    def put(self, key: str) -> Path:
        path = self.driver.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes")
        return path

    async def insert(self, key: str, *, not_before: int = 0) -> None:
        def work(tx: Transaction) -> None:
            pending_deletions.insert(tx, self.driver.name, key, "test", not_before=not_before)

        await self.database.write(work, actor="ann")

    async def list(self) -> list[str]:
        return sorted(row.key for row in await rows(self.database, tables.pending_deletions))


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    return MovableClock(monkeypatch)


@pytest.fixture
async def queue(
    movable_clock: MovableClock, database_url: str, tmp_path: Path
) -> AsyncIterator[Deletions]:
    del movable_clock  # The database reads the clock that is patched when it opens.
    database, driver = Database(database_url), LocalDriver(tmp_path / "store")
    await driver.start()
    yield Deletions(database, driver)
    await driver.close()
    await database.close()


async def test_one_that_cannot_be_removed_keeps_none_behind_it(
    movable_clock: MovableClock, queue: Deletions
) -> None:
    stays = queue.driver.path(FIRST)
    stays.mkdir(parents=True)  # unlink cannot remove a directory
    for key in (FIRST, SECOND, THIRD):
        await queue.insert(key)
    removed = [queue.put(SECOND), queue.put(THIRD)]
    assert await queue.service.sweep() == 2
    assert not any(path.exists() for path in removed)
    assert await queue.list() == [FIRST]
    assert not await queue.service.is_any_due()
    stays.rmdir()
    movable_clock.forward(PAUSE_S)
    assert await queue.service.sweep() == 1
    assert await queue.list() == []


async def test_a_store_that_fails_keeps_all(queue: Deletions) -> None:
    await queue.insert(FIRST)
    path = queue.put(FIRST)
    version = queue.driver.path("VERSION")
    text = version.read_bytes()
    version.unlink()  # as if the disk were not mounted
    with pytest.raises(StoreUnavailableError):
        await queue.service.sweep()
    assert await queue.service.is_any_due()  # The deletion is not deferred.
    version.write_bytes(text)
    assert await queue.service.sweep() == 1
    assert not path.exists()


@pytest.mark.parametrize("anew", [True, False])
async def test_bytes_that_come_while_they_are_removed(
    queue: Deletions, monkeypatch: pytest.MonkeyPatch, *, anew: bool
) -> None:
    """The writer queues the key again, and the running deletion must not drop that entry."""
    await queue.insert(FIRST)
    real = queue.driver.delete

    async def delete(key: str) -> None:
        await real(key)
        if anew:
            queue.put(key)
            await queue.insert(key)

    monkeypatch.setattr(queue.driver, "delete", delete)
    await queue.service.sweep()
    assert await queue.list() == ([FIRST] if anew else [])
    monkeypatch.undo()
    await queue.service.sweep()
    assert await queue.list() == []
    assert not queue.driver.path(FIRST).exists()


async def test_keys_of_a_store_that_is_not_open_stay(queue: Deletions) -> None:
    await queue.database.write(
        lambda tx: pending_deletions.insert(tx, "elsewhere", FIRST, "test"), actor="ann"
    )
    assert await queue.service.sweep() == 0
    assert await queue.list() == [FIRST]
