"""Tests of SQLite: connection settings, group commit, the size of the log, and file permissions."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from registry import clock
from registry.errors import DatabaseFullError, DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.content import repositories, uploads
from registry.metadata.engine import leases, migrate, sqlite
from registry.metadata.engine.database import Database
from registry.metadata.engine.sqlite import SqliteWriter
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import NAME, rows, upload
from tests.support.missing import missing

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate.upgrade(f"sqlite:///{tmp_path}/moorage.db")
    return tmp_path / "moorage.db"


@pytest.fixture
async def database(path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(f"sqlite:///{path}")
    yield opened
    await opened.close()


@pytest.fixture
def writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteWriter]:
    # A group never times out: its size depends on the test, not on the load of the machine.
    monkeypatch.setattr(sqlite, "BATCH_SECONDS", 60)
    opened = SqliteWriter(path, clock.now_us)
    yield opened
    opened.close()


def put(upload_id: str, size: int = 1) -> Callable[[Transaction], str]:
    """Return work that writes a row of about `size` bytes."""

    def work(tx: Transaction) -> str:
        uploads.insert(tx, upload(upload_id, key="x" * size))
        return upload_id

    return work


def list_ids(path: Path) -> list[str]:
    """Return the ids that another process reads."""
    connection = sqlite3.connect(path)
    found = [upload_id for (upload_id,) in connection.execute("SELECT id FROM uploads ORDER BY 1")]
    connection.close()
    return found


class Held:
    """Work that blocks the writer's thread, so that later submissions form one group."""

    def __init__(self, writer: SqliteWriter) -> None:
        self._go_on = threading.Event()
        self._begun = threading.Event()
        self.future = writer.submit(self._work, "holder")
        assert self._begun.wait(10)

    def _work(self, _tx: Transaction) -> None:
        self._begun.set()
        assert self._go_on.wait(10)

    def release(self) -> None:
        self._go_on.set()
        self.future.result(10)


# Connections.


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


# Group commit.


def test_what_waits_together_commits_together(path: Path, writer: SqliteWriter) -> None:
    commits: list[str] = []
    sa.event.listen(writer._engine, "commit", lambda _connection: commits.append("one"))
    held = Held(writer)
    futures = [writer.submit(put(f"{number:02}"), "ann") for number in range(sqlite.BATCH)]
    held.release()
    assert [future.result(10) for future in futures] == list_ids(path)
    assert len(commits) == 2


def test_an_error_takes_back_its_own_member_alone(path: Path, writer: SqliteWriter) -> None:
    def fail(tx: Transaction) -> None:
        put("never")(tx)
        raise ZeroDivisionError

    def break_a_rule(tx: Transaction) -> None:
        put("a")(tx)

    held = Held(writer)
    works: list[Callable[[Transaction], Any]] = [put("a"), fail, put("b"), break_a_rule, put("c")]
    futures = [writer.submit(work, "ann") for work in works]
    held.release()
    wait(futures, 10)
    errors = [type(future.exception()).__name__ for future in futures]
    assert errors == ["NoneType", "ZeroDivisionError", "NoneType", "IntegrityError", "NoneType"]
    assert list_ids(path) == ["a", "b", "c"]


def test_a_commit_that_fails_fails_for_all(path: Path, writer: SqliteWriter) -> None:
    def orphan(tx: Transaction) -> None:
        """Violate a foreign key in a way that only the commit detects."""
        tx.connection.exec_driver_sql("PRAGMA defer_foreign_keys=1")
        tx.connection.exec_driver_sql("INSERT INTO repository_blobs VALUES (99, 'sha256:0', 0)")

    held = Held(writer)
    futures = [writer.submit(work, "ann") for work in (put("a"), orphan, put("b"))]
    held.release()
    for future in futures:
        assert isinstance(future.exception(10), sa.exc.IntegrityError)
    assert list_ids(path) == []
    assert writer.submit(put("c"), "ann").result(10) == "c"


def test_a_transaction_that_cannot_begin_fails_all_at_once(
    path: Path, writer: SqliteWriter
) -> None:
    """Otherwise each transaction in turn waits for the whole busy timeout."""

    def set_patience(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("PRAGMA busy_timeout=1000")

    writer.submit(set_patience, "ann").result(10)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    futures = [writer.submit(put(f"{number}"), "ann") for number in range(40)]
    for future in futures:
        assert isinstance(future.exception(100), sa.exc.OperationalError)
    # The first may have waited before the others arrived. All in turn would take 40 seconds.
    assert time.monotonic() - started < 30
    stranger.execute("ROLLBACK")
    stranger.close()
    assert writer.submit(put("last"), "ann").result(10) == "last"


def test_a_group_ends_when_its_time_is_up(
    path: Path, writer: SqliteWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BATCH_SECONDS", 0.02)
    commits: list[int] = []
    sa.event.listen(
        writer._engine, "commit", lambda _connection: commits.append(len(list_ids(path)))
    )

    def slow(upload_id: str) -> Callable[[Transaction], str]:
        def work(tx: Transaction) -> str:
            time.sleep(sqlite.BATCH_SECONDS)
            return put(upload_id)(tx)

        return work

    held = Held(writer)
    futures = [writer.submit(slow(f"{number}"), "ann") for number in range(3)]
    held.release()
    wait(futures, 10)
    assert commits == [0, 0, 1, 2]


def test_nobody_can_stop_the_writer_by_walking_away(writer: SqliteWriter) -> None:
    held = Held(writer)
    future = writer.submit(put("a"), "ann")
    assert not future.cancel()
    held.release()
    assert writer.submit(put("b"), "ann").result(10) == "b"


def test_first_come_first_served(writer: SqliteWriter) -> None:
    order: list[int] = []
    futures = [
        writer.submit(lambda _tx, n=number: order.append(n), "ann")  # type: ignore[misc]
        for number in range(300)
    ]
    wait(futures, 30)
    assert order == list(range(300))


def test_close_writes_what_is_queued(path: Path) -> None:
    writer = SqliteWriter(path, clock.now_us)
    held = Held(writer)
    futures = [writer.submit(put(f"{number:03}"), "ann") for number in range(200)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    held.release()
    closing.join(10)
    assert not closing.is_alive()
    assert [future.result(0) for future in futures] == list_ids(path)
    with pytest.raises(RuntimeError):
        writer.submit(put("late"), "ann")
    assert not path.with_name("moorage.db-wal").exists()


# The write-ahead log.


def flood(writer: SqliteWriter, count: int, size: int = 1) -> "Iterator[Future[Any]]":
    """Write `count` rows of about `size` bytes, 64 at a time. Yield each future when done."""
    pending: list[Future[Any]] = []
    for number in range(count):
        pending.append(writer.submit(put(f"{time.monotonic_ns()}-{number}", size), "ann"))
        if len(pending) == 64:
            wait(pending)
            yield from pending
            pending.clear()
    wait(pending)
    yield from pending


@pytest.mark.slow
def test_the_log_stays_small_under_many_small_writes(path: Path, writer: SqliteWriter) -> None:
    log = path.with_name("moorage.db-wal")
    largest = max(log.stat().st_size for done in flood(writer, 5000) if done.result())
    assert largest < 3 * sqlite.CHECKPOINT_GROWTH
    assert len(list_ids(path)) == 5000


def test_the_log_stays_small_however_much_is_written(path: Path, writer: SqliteWriter) -> None:
    """The log must shrink again: otherwise each checkpoint comes later than the one before."""
    log = path.with_name("moorage.db-wal")
    largest = max(
        log.stat().st_size
        for number in range(60)
        if writer.submit(put(f"{number}", 1 << 20), "ann").result(10)
    )
    assert largest < 4 * sqlite.CHECKPOINT_GROWTH


def test_writes_go_on_while_checkpoints_fail(
    path: Path,
    writer: SqliteWriter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def forbid(action: int, name: str | None, *_: object) -> int:
        forbidden = action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint"
        return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK

    def sabotage(tx: Transaction) -> None:
        connection = cast("sqlite3.Connection", tx.connection.connection.dbapi_connection)
        connection.set_authorizer(forbid)

    writer.submit(sabotage, "ann").result(10)
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 2)
    for number in range(12):
        assert writer.submit(put(f"{number:02}"), "ann").result(10) == f"{number:02}"
    assert {record.message for record in caplog.records} == {"checkpoint failed"}
    assert len(caplog.records) in {5, 6}  # the last may be missing
    assert len(list_ids(path)) == 12


def test_a_reader_that_stays_holds_up_neither_writes_nor_later_checkpoints(
    path: Path, writer: SqliteWriter
) -> None:
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    log = path.with_name("moorage.db-wal")
    for number in range(16):
        writer.submit(put(f"{number}", 1 << 20), "ann").result(10)
    assert log.stat().st_size > 4 * sqlite.CHECKPOINT_GROWTH
    assert reader.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    reader.execute("COMMIT")
    for number in range(16, 40):
        writer.submit(put(f"{number}", 1 << 20), "ann").result(10)
    assert log.stat().st_size < 3 * sqlite.CHECKPOINT_GROWTH
    reader.close()


async def test_the_file_is_whole_after_much_of_everything(database: Database, path: Path) -> None:
    def refuse(tx: Transaction) -> None:
        put("never")(tx)
        raise ZeroDivisionError

    works: list[Callable[[Transaction], Any]] = [
        *(put(f"{number}", number * 100) for number in range(200)),
        *([refuse] * 50),
        *([lambda tx: repositories.ensure(tx, NAME)] * 50),
        *([lambda tx: uploads.delete(tx, "7")] * 10),
    ]
    await asyncio.gather(
        *(database.write(work, actor="ann") for work in works), return_exceptions=True
    )
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    assert len(list_ids(path)) == 199


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        missing("the right to mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "moorage", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_is_told_and_loses_nothing_acknowledged(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    url = f"sqlite:///{small_disk}/moorage.db"
    database = Database(url)
    await asyncio.to_thread(migrate.upgrade, url)
    acknowledged: list[str] = []

    async def fill() -> None:
        while True:
            added = await database.write(put(f"{len(acknowledged)}", 100_000), actor="ann")
            acknowledged.append(added)

    with pytest.raises(DatabaseFullError):
        await fill()
    with pytest.raises(DatabaseFullError):
        await database.write(put("refused", 500_000), actor="ann")
    assert len(acknowledged) > 5
    assert {row.id for row in await rows(database, tables.uploads)} == set(acknowledged)
    ballast.unlink()
    assert await database.write(lambda tx: leases.claim(tx, "a", "b", 1), actor="ann")
    await database.close()
    assert set(list_ids(small_disk / "moorage.db")) == set(acknowledged)
