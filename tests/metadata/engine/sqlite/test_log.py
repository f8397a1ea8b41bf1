"""The size of the write-ahead log, and a full disk."""

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from registry.errors import DatabaseFullError
from registry.metadata import tables
from registry.metadata.content import repositories, uploads
from registry.metadata.engine import leases, migrate, sqlite
from registry.metadata.engine.database import Database
from registry.metadata.engine.sqlite import SqliteWriter
from registry.metadata.engine.transaction import Transaction
from tests.metadata.engine.sqlite.writes import flood, list_ids, put
from tests.metadata.rows import NAME, rows
from tests.support.missing import missing

pytestmark = pytest.mark.anyio


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
