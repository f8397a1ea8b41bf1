"""Doomed keys: each once, due in order of their time, gone when their bytes are."""

import pytest

from registry.metadata import doomed, leases, tables
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from tests.metadata.rows import race, rows

pytestmark = pytest.mark.anyio


async def test_are_due_when_their_time_has_come(database: Database) -> None:
    def work(tx: Transaction) -> list[list[str]]:
        tx.now = 100
        for key, not_before in {"late": 101, "second": 100, "first": 7, "b": 0, "a": 0}.items():
            doomed.insert(tx, "local", key, "test", not_before=not_before)
        doomed.insert(tx, "bucket", "elsewhere", "test")
        return [doomed.list_due(tx, "local", 9), doomed.list_due(tx, "local", 3)]

    everything, page = await database.write(work, actor="ann")
    assert everything == ["a", "b", "first", "second"]
    assert page == everything[:3]


async def test_doomed_again_waits_for_the_new_time(database: Database) -> None:
    def work(tx: Transaction) -> list[str]:
        tx.now = 100
        doomed.insert(tx, "local", "key", "first reason", not_before=50)
        doomed.insert(tx, "local", "key", "second reason", not_before=150)
        return doomed.list_due(tx, "local", 9)

    assert await database.write(work, actor="ann") == []
    (row,) = await rows(database, tables.doomed)
    assert (row.not_before, row.reason) == (150, "first reason")


@pytest.mark.usefixtures("own_time")
async def test_none_is_due_while_any_backup_runs(database: Database) -> None:
    def work(tx: Transaction) -> list[list[str]]:
        tx.now = 100_000_000
        doomed.insert(tx, "local", "key", "test")
        leases.claim(tx, "doomed", "job", 60)
        found = [doomed.list_due(tx, "local", 9)]
        for name in ("one", "two"):
            leases.claim(tx, f"backup/{name}", name, 60)
            found.append(doomed.list_due(tx, "local", 9))
        leases.release(tx, "backup/one", "one")
        found.append(doomed.list_due(tx, "local", 9))
        tx.now += 50_000_000
        assert leases.extend(tx, "backup/two", "two", 60)
        assert not leases.extend(tx, "backup/two", "another", 60)
        tx.now += 50_000_000
        found.append(doomed.list_due(tx, "local", 9))
        tx.now += 11_000_000
        assert not leases.extend(tx, "backup/two", "two", 60)
        found.append(doomed.list_due(tx, "local", 9))
        return found

    found = await database.write(work, actor="ann")
    assert found == [["key"], [], [], [], [], ["key"]]


async def test_forgotten_are_those_named_of_that_store(database: Database) -> None:
    def work(tx: Transaction) -> None:
        for store in ("local", "bucket"):
            for key in ("a", "b", "c"):
                doomed.insert(tx, store, key, "test")
        doomed.delete(tx, "local", ["a", "c", "never there"])

    await database.write(work, actor="ann")
    left = [(row.store, row.key) for row in await rows(database, tables.doomed)]
    assert sorted(left) == [("bucket", "a"), ("bucket", "b"), ("bucket", "c"), ("local", "b")]


async def test_one_row_however_many_doom_a_key(replicas: list[Database]) -> None:
    await race(replicas, [lambda tx: doomed.insert(tx, "local", "key", "test")] * 16)
    assert len(await rows(replicas[0], tables.doomed)) == 1
