"""Connection settings of SQLite, and permissions of its files."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.engine import migrate, sqlite
from registry.metadata.engine.database import Database
from registry.metadata.engine.statements import Statement
from registry.metadata.engine.transaction import Transaction
from tests.metadata.engine.sqlite.writes import put
from tests.metadata.rows import rows

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("writer_side", [True, False])
def test_every_connection_keeps_the_promises(path: Path, writer_side: bool) -> None:
    engine = sqlite.open_engine(path, writer=writer_side)
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "wal_autocheckpoint": 0,
        "journal_size_limit": sqlite.CHECKPOINT_GROWTH,
        "query_only": 0 if writer_side else 1,
    }
    connections = [engine.raw_connection() for _ in range(3)]
    for connection in connections:
        cursor = connection.cursor()
        found = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
        assert found == expected
        cursor.close()
        connection.close()
    engine.dispose()


async def test_the_connections_in_use_are_such(database: Database) -> None:
    def look(tx: Transaction) -> tuple[int, int, int]:
        return tuple(
            tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("synchronous", "foreign_keys", "query_only")
        )

    reads = await asyncio.gather(*(database.read(look) for _ in range(8)))
    assert set(reads) == {(2, 1, 1)}
    assert await database.write(look, actor="ann") == (2, 1, 0)


def test_a_connection_that_cannot_keep_a_promise_is_refused(path: Path) -> None:
    """For example on a file system without shared memory for a write-ahead log."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("BEGIN IMMEDIATE")
    engine = sqlite.open_engine(path, writer=False)
    with pytest.raises(sa.exc.OperationalError):
        engine.connect()
    engine.dispose()
    connection.close()


async def test_a_reader_cannot_write_and_sees_one_moment(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await database.read(put("a"))
    begun, go_on = threading.Event(), threading.Event()

    def look_twice(tx: Transaction) -> list[int]:
        count = sa.select(sa.func.count()).select_from(tables.uploads)
        counts = [tx.execute(count).scalar_one()]
        begun.set()
        assert go_on.wait(10)
        return [*counts, tx.execute(count).scalar_one()]

    reading = asyncio.ensure_future(database.read(look_twice))
    await asyncio.to_thread(begun.wait)
    await database.write(put("a"), actor="ann")
    go_on.set()
    assert await reading == [0, 0]
    assert len(await rows(database, tables.uploads)) == 1


def test_files_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        database = Database(f"sqlite:///{tmp_path}/moorage.db")
        migrate.upgrade(f"sqlite:///{tmp_path}/moorage.db")
        asyncio.run(database.write(put("a"), actor="ann"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        asyncio.run(database.close())
    finally:
        os.umask(previous)
    suffixes = ("", "-shm", "-turn", "-wal", "-writer")
    assert modes == {f"moorage.db{suffix}": 0o600 for suffix in suffixes}


def test_a_file_that_is_there_is_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    sqlite.create_file(path)
    assert path.read_bytes() == before


ONE = Statement(sa.select(sa.func.count()).select_from(tables.uploads))


async def test_a_read_of_one_statement_sends_nothing_else(database: Database) -> None:
    sent: list[str] = []

    def look(tx: Transaction) -> int:
        driver = tx.connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(sent.append)
        try:
            assert not driver.in_transaction
            return int(tx.fetch_value(ONE))
        finally:
            driver.set_trace_callback(None)

    assert await database.read(look, single=True) == 0
    assert [text.split()[0] for text in sent] == ["SELECT"]


async def test_a_single_read_sees_each_commit(database: Database) -> None:
    """It leaves no snapshot open on its connection, also after a read that fails."""

    def fail(tx: Transaction) -> None:
        tx.fetch_value(ONE)
        raise LookupError

    async def count() -> set[object]:
        work = [database.read(lambda tx: tx.fetch_value(ONE), single=True) for _ in range(16)]
        return set(await asyncio.gather(*work))

    for expected in (0, 1, 2):
        assert await count() == {expected}
        for single in (True, False):
            with pytest.raises(LookupError):
                await database.read(fail, single=single)
        await database.write(put(f"upload{expected}"), actor="ann")


WORK: dict[str, Callable[[Transaction], object]] = {
    "two": lambda tx: (tx.fetch_all(ONE), tx.fetch_value(ONE)),
    "built": lambda tx: tx.execute(sa.select(1)),
    "each": lambda tx: tx.run_each(ONE, []),
}


@pytest.mark.parametrize("work", WORK)
async def test_a_single_read_runs_one_statement(database: Database, work: str) -> None:
    """Two statements without a transaction could see two snapshots."""
    with pytest.raises(RuntimeError, match="a single read"):
        await database.read(WORK[work], single=True)
