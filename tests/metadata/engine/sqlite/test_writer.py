"""The writer of SQLite, which commits transactions in groups."""

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry import clock
from registry.metadata.engine import sqlite
from registry.metadata.engine.sqlite import SqliteWriter
from registry.metadata.engine.transaction import Transaction
from tests.metadata.engine.sqlite.writes import Held, list_ids, put

pytestmark = pytest.mark.anyio


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


def test_a_lone_member_that_fails_leaves_nothing(path: Path, writer: SqliteWriter) -> None:
    def fail(tx: Transaction) -> None:
        put("never")(tx)
        raise ZeroDivisionError

    statements: list[str] = []
    sa.event.listen(
        writer._engine, "before_cursor_execute", lambda _c, _cursor, sql, *_: statements.append(sql)
    )
    assert writer.submit(put("a"), "ann").result(10) == "a"
    connection = writer._connection
    assert isinstance(writer.submit(fail, "ann").exception(10), ZeroDivisionError)
    assert writer.submit(put("b"), "ann").result(10) == "b"
    assert list_ids(path) == ["a", "b"]
    assert writer._connection is connection
    assert not any("SAVEPOINT" in sql for sql in statements)


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


def test_a_connection_is_kept_until_a_group_fails(path: Path, writer: SqliteWriter) -> None:
    def find_level(tx: Transaction) -> int:
        level = tx.connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        return int(level)

    def fail(_connection: sa.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    taken: list[str] = []
    sa.event.listen(writer._engine, "checkout", lambda *_arguments: taken.append("one"))
    levels = [
        writer.submit(find_level, "ann", durable=durable).result(10)
        for durable in (False, True, True, False)
    ]
    assert levels == [1, 2, 2, 1]
    assert len(taken) == 1
    sa.event.listen(writer._engine, "commit", fail)
    with pytest.raises(sqlite3.OperationalError):
        writer.submit(put("lost"), "ann").result(10)
    sa.event.remove(writer._engine, "commit", fail)
    writer.submit(put("a"), "ann").result(10)
    assert writer.submit(find_level, "ann", durable=False).result(10) == 1
    assert list_ids(path) == ["a"]
    assert len(taken) == 2


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
