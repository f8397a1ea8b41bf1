"""Tests of pending deletions: each key once, due in order of time, removed with their bytes."""

import pytest

from registry.metadata import tables
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from tests.metadata.rows import race, rows

pytestmark = pytest.mark.anyio


def due(tx: Transaction, store: str = "local", n: int = 9) -> list[str]:
    return [row.key for row in pending_deletions.list_due(tx, store, n)]


async def test_are_due_when_their_time_has_come(database: Database) -> None:
    def work(tx: Transaction) -> list[list[str]]:
        tx.now = 100
        for key, not_before in {"late": 101, "second": 100, "first": 7, "b": 0, "a": 0}.items():
            pending_deletions.insert(tx, "local", key, "test", not_before=not_before)
        pending_deletions.insert(tx, "bucket", "elsewhere", "test")
        return [due(tx), due(tx, n=3)]

    everything, page = await database.write(work, actor="ann")
    assert everything == ["a", "b", "first", "second"]
    assert page == everything[:3]


async def test_a_key_queued_again_waits_for_the_later_time(database: Database) -> None:
    def work(tx: Transaction) -> list[str]:
        tx.now = 100
        for reason, not_before in {"first": 50, "second": 150, "third": 120}.items():
            pending_deletions.insert(tx, "local", "key", reason, not_before=not_before)
        return due(tx)

    assert await database.write(work, actor="ann") == []
    (row,) = await rows(database, tables.pending_deletions)
    assert (row.not_before, row.reason) == (151, "third")


@pytest.mark.usefixtures("own_time")
async def test_none_is_due_while_any_backup_runs(database: Database) -> None:
    def list_keys(tx: Transaction) -> list[str]:
        return [row.key for row in pending_deletions.list_due(tx, "local", 9)]

    def work(tx: Transaction) -> list[list[str]]:
        tx.now = 100_000_000
        pending_deletions.insert(tx, "local", "key", "test")
        leases.claim(tx, "pending-deletions", "job", 60)
        found = [list_keys(tx)]
        for name in ("one", "two"):
            leases.claim(tx, f"backup/{name}", name, 60)
            found.append(list_keys(tx))
        leases.release(tx, "backup/one", "one")
        found.append(list_keys(tx))
        tx.now += 50_000_000
        assert leases.extend(tx, "backup/two", "two", 60)
        assert not leases.extend(tx, "backup/two", "another", 60)
        tx.now += 50_000_000
        found.append(list_keys(tx))
        tx.now += 11_000_000
        assert not leases.extend(tx, "backup/two", "two", 60)
        found.append(list_keys(tx))
        return found

    found = await database.write(work, actor="ann")
    assert found == [["key"], [], [], [], [], ["key"]]


async def test_forgotten_are_those_that_were_due(database: Database) -> None:
    def work(tx: Transaction) -> None:
        for store in ("local", "bucket"):
            for key in ("a", "b", "c"):
                pending_deletions.insert(tx, store, key, "test")
        pending_deletions.delete(
            tx, [row for row in pending_deletions.list_due(tx, "local", 9) if row.key != "b"]
        )
        pending_deletions.delete(tx, [])

    await database.write(work, actor="ann")
    left = [(row.store, row.key) for row in await rows(database, tables.pending_deletions)]
    assert sorted(left) == [("bucket", "a"), ("bucket", "b"), ("bucket", "c"), ("local", "b")]


async def test_a_key_queued_again_after_it_was_due_stays(database: Database) -> None:
    """A key that is queued again within the same microsecond stays, too."""

    def work(tx: Transaction) -> list[str]:
        pending_deletions.insert(tx, "local", "key", "test")
        listed = pending_deletions.list_due(tx, "local", 9)
        pending_deletions.insert(tx, "local", "key", "put too late")
        pending_deletions.delete(tx, listed)
        pending_deletions.schedule_second_delete(tx, listed, 60)
        pending_deletions.defer(tx, listed, 60)
        tx.now += 1
        return due(tx)

    assert await database.write(work, actor="ann") == ["key"]


async def test_put_off_it_is_due_later(database: Database) -> None:
    def work(tx: Transaction) -> None:
        for key in ("removed", "kept"):
            pending_deletions.insert(tx, "local", key, "test")
        kept, removed = pending_deletions.list_due(tx, "local", 9)
        assert not kept.again
        assert not removed.again
        pending_deletions.defer(tx, [kept], 60)
        pending_deletions.schedule_second_delete(tx, [removed], 60)
        tx.now += 59_999_999
        assert pending_deletions.list_due(tx, "local", 9) == []
        tx.now += 1
        kept, removed = pending_deletions.list_due(tx, "local", 9)
        assert not kept.again
        assert removed.again
        # Its bytes are deleted, so a new deletion need not wait as long.
        tx.now -= 30_000_000
        for key in ("removed", "kept"):
            pending_deletions.insert(tx, "local", key, "put too late")
        assert due(tx) == ["removed"]

    await database.write(work, actor="ann")


async def test_one_row_however_often_a_key_is_queued(replicas: list[Database]) -> None:
    await race(replicas, [lambda tx: pending_deletions.insert(tx, "local", "key", "test")] * 16)
    assert len(await rows(replicas[0], tables.pending_deletions)) == 1
