"""Tests of reads and writes through `Database`: its promises on either database."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from registry.errors import ConfigError, DatabaseUnavailableError, RepositoryUnknownError
from registry.metadata import tables
from registry.metadata.content import repositories
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import NAME, events, rows

pytestmark = pytest.mark.anyio


class HorridError(BaseException):
    """An error that `except Exception` does not catch."""


def bear(tx: Transaction) -> str:
    return repositories.ensure(tx, NAME).generation


async def test_a_write_gives_what_work_gives_and_others_read_it(replicas: list[Database]) -> None:
    generation = await replicas[0].write(bear, actor="ann")
    row = await replicas[1].read(lambda tx: repositories.find(tx, NAME))
    assert row is not None
    assert row.generation == generation


async def test_what_work_raises_rolls_back_and_reaches_the_caller(database: Database) -> None:
    def work(tx: Transaction) -> None:
        bear(tx)
        raise RepositoryUnknownError("as asked", {"name": "x"})

    with pytest.raises(RepositoryUnknownError, match="as asked") as caught:
        await database.write(work, actor="ann")
    assert caught.value.detail == {"name": "x"}
    assert await rows(database, tables.repositories) == []
    assert await events(database) == []


async def test_the_worst_that_work_can_raise_is_its_own_affair(database: Database) -> None:
    def work(tx: Transaction) -> None:
        bear(tx)
        raise HorridError

    async with asyncio.timeout(5):
        with pytest.raises(HorridError):
            await database.write(work, actor="ann")
        assert await rows(database, tables.repositories) == []
        await database.write(bear, actor="ann")


async def test_a_wrong_statement_is_no_end(database: Database) -> None:
    def work(tx: Transaction) -> None:
        bear(tx)
        tx.connection.exec_driver_sql("SELECT nothing FROM nowhere")

    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            await database.write(work, actor="ann")
        with pytest.raises(DatabaseUnavailableError):
            await database.read(work)
    assert await events(database) == []


async def test_a_cancelled_write_still_ends_its_transaction_first(database: Database) -> None:
    """The caller may free what the transaction uses, which is too early before its end."""
    begun, go_on = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        bear(tx)
        begun.set()
        assert go_on.wait(10)

    task = asyncio.ensure_future(database.write(work, actor="ann"))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.sleep(0.1)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await rows(database, tables.repositories)) == 1


async def test_a_queued_write_is_done_although_nobody_waits_for_it(database: Database) -> None:
    tasks = [
        asyncio.ensure_future(
            database.write(lambda tx, n=n: leases.claim(tx, f"{n}", "ann", 60), actor="ann")  # type: ignore[misc]
        )
        for n in range(40)
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(o, asyncio.CancelledError)
        for o in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert len(await rows(database, tables.leases)) == 40


async def test_a_cancelled_read_is_left_alone(database: Database) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work(tx: Transaction) -> list[str]:
        begun.set()
        try:
            assert go_on.wait(100)
        finally:
            ended.set()
        return repositories.list_names(tx, 9, "")

    task = asyncio.ensure_future(database.read(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    go_on.set()
    assert await database.read(lambda tx: repositories.list_names(tx, 9, "")) == []


async def test_reads_go_on_while_a_write_takes_its_time(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        bear(tx)
        begun.set()
        assert go_on.wait(10)

    task = asyncio.ensure_future(database.write(work, actor="ann"))
    await asyncio.to_thread(begun.wait)
    async with asyncio.timeout(5):
        assert await rows(database, tables.repositories) == []
    go_on.set()
    await task
    assert len(await rows(database, tables.repositories)) == 1


async def test_close_writes_what_is_queued_and_takes_no_more(database_url: str) -> None:
    database = Database(database_url)
    tasks = [
        asyncio.ensure_future(
            database.write(lambda tx, n=n: leases.claim(tx, f"{n}", "ann", 60), actor="ann")  # type: ignore[misc]
        )
        for n in range(100)
    ]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*tasks) == [True] * 100
    async with asyncio.timeout(5):
        for ask in (database.write(bear, actor="ann"), database.read(bear)):
            with pytest.raises(RuntimeError):
                await ask
    again = Database(database_url)
    assert len(await rows(again, tables.leases)) == 100
    await again.close()


async def test_transactions_have_a_time_and_an_actor(database: Database) -> None:
    seen: list[tuple[str, int]] = []
    for actor in ("ann", "bob"):
        await database.write(lambda tx: seen.append((tx.actor, tx.now)), actor=actor)
    before, now = seen[0][1], time.time_ns() // 1000
    assert [actor for actor, _ in seen] == ["ann", "bob"]
    assert now - 10_000_000 < before < seen[1][1] <= now


async def test_a_name_comes_back_as_a_name(database: Database) -> None:
    await database.write(bear, actor="ann")
    (row,) = await rows(database, tables.repositories)
    assert isinstance(row.name, RepositoryName)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("sqlite:////data/moorage.db", "sqlite:////data/moorage.db"),
        ("sqlite:///relative.db", "sqlite:///relative.db"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
    ],
)
def test_a_url_names_one_of_two_databases(text: str, read: str) -> None:
    assert parse_url(text).render_as_string() == read
    assert Database.is_embedded(text) is text.startswith("sqlite")


@pytest.mark.parametrize(
    "text",
    ["", "moorage.db", "sqlite://", "mysql://u:hunter2@h/d", "postgresql+asyncpg://u:hunter2@h/d"],
)
def test_any_other_url_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(text)
    assert "database.url" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_an_embedded_database_has_a_path(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/moorage.db")
    assert database.path == tmp_path / "moorage.db"
    asyncio.run(database.close())
