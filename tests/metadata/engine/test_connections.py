"""Tests with a server that has fewer connections than a process wants."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata.content import repositories
from registry.metadata.engine import connections, fair_pool
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.fair_pool import FairPool
from registry.metadata.engine.settings import DEFAULT
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
def role(postgres: Cluster) -> Iterator[str]:
    """Yield a role whose connections a test may limit."""
    name = f"moorage_{uuid.uuid4().hex}"
    postgres.execute(f"CREATE ROLE {name} LOGIN")
    postgres.execute(f"GRANT pg_read_all_data, pg_write_all_data TO {name}")
    yield name
    postgres.execute(f"DROP ROLE {name}")


@pytest.fixture
def url(postgres: Cluster, role: str) -> Iterator[str]:
    with postgres.database() as url:
        yield parse_url(url).set(username=role).render_as_string(hide_password=False)


@pytest.fixture
async def database(url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(url)
    yield opened
    await opened.close()


@pytest.fixture
def limit(postgres: Cluster, role: str) -> Callable[[int], None]:
    def limit(number: int) -> None:
        postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT {number}")

    return limit


def read(tx: Transaction) -> None:
    tx.execute(sa.select(sa.func.pg_sleep(0.005))).close()


def write(number: int) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repositories.ensure(tx, RepositoryName(f"r{number}"))

    return work


async def work(database: Database, start: int = 0) -> None:
    """Run many more reads and writes than there are connections."""
    await asyncio.gather(
        *(database.read(read) for _ in range(20)),
        *(database.write(write(start + number), actor="ann") for number in range(10)),
    )


@pytest.mark.parametrize("number", [1, 2, 4])
async def test_readers_and_writers_share_what_there_is(
    database: Database, limit: Callable[[int], None], number: int
) -> None:
    limit(number)
    await work(database)
    assert database.connections
    # A refusal counts what is connecting at that moment, and the limit grows again after a while.
    assert number <= database.connections.pool.limit <= number + 1


async def test_writers_have_their_turn_where_readers_were_first(
    database: Database, limit: Callable[[int], None]
) -> None:
    limit(DEFAULT.read_connections)
    await asyncio.gather(*(database.read(read) for _ in range(40)))
    await asyncio.gather(*(database.write(write(n), actor="ann") for n in range(20)))


async def test_without_turns_writers_are_refused(
    database: Database, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "is_full", lambda _: False)
    limit(2)
    with pytest.raises(DatabaseUnavailableError):
        await work(database)


async def test_the_watch_asks_through_the_pool_where_it_has_no_connection(
    database: Database, limit: Callable[[int], None]
) -> None:
    limit(1)
    watch = RevisionWatch(database)
    await database.write(write(1), actor="ann")
    before = await watch.read()
    await database.write(write(2), actor="ann")
    assert (await watch.read()).feed == before.feed + 1
    watch.close()


async def test_two_processes_share_what_one_would_take(
    database: Database, url: str, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(DEFAULT.read_connections + DEFAULT.write_connections)
    await work(database)
    assert database.connections
    assert database.connections.pool.idle == DEFAULT.read_connections + DEFAULT.write_connections
    monkeypatch.setattr(connections, "IDLE_S", 0.3)
    monkeypatch.setattr(connections, "_TRIM_EVERY", 0.1)
    other = Database(url)
    # The first process is nearly idle from now on, and closes the connections it does not use.
    for number in range(20):
        await database.read(read)
        await asyncio.sleep(0.02)
        if number % 10 == 0:
            database.connections.pool.trim(0.1)
    await work(other, 100)
    await other.close()


async def test_more_is_used_when_there_is_more(
    database: Database, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(1)
    await work(database)
    assert database.connections
    limit(-1)
    monkeypatch.setattr(fair_pool, "RETRY_AFTER", 0.0)
    await work(database, 100)
    assert database.connections.pool.limit > 1


async def test_a_server_with_no_connection_left_is_named(
    database: Database, limit: Callable[[int], None]
) -> None:
    limit(0)
    with pytest.raises(DatabaseUnavailableError) as caught:
        await database.read(read)
    assert "no connection left" in caught.value.reason
    limit(-1)
    await work(database)


class Opened:
    """A stand-in for a connection, in a test of the order of requests."""

    def close(self) -> None: ...

    def rollback(self) -> None: ...


def test_connections_are_handed_out_in_the_order_of_asking() -> None:
    pool = FairPool(Opened, pool_size=1, timeout=10)
    first = pool.connect()
    order: list[int] = []

    def take(number: int) -> None:
        connection = pool.connect()
        order.append(number)
        connection.close()

    threads = []
    for number in range(10):
        threads.append(threading.Thread(target=take, args=[number]))
        threads[-1].start()
        while len(pool._queue) <= number:
            time.sleep(0.001)
    first.close()
    for thread in threads:
        thread.join()
    assert order == list(range(10))
    assert pool.idle == 1


def test_a_turn_that_does_not_come_is_not_kept() -> None:
    pool = FairPool(Opened, pool_size=1, timeout=0.05)
    held = pool.connect()
    with pytest.raises(sa.exc.TimeoutError):
        pool.connect()
    held.close()
    pool.connect().close()
    assert pool._used == 0


def test_a_connection_that_cannot_be_made_takes_no_turn() -> None:
    def fail() -> Opened:
        raise OSError

    pool = FairPool(fail, pool_size=1, timeout=0.05)
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011 - as raised above
            pool.connect()
    assert pool._used == 0


def test_a_pool_that_was_disposed_of_closes_what_is_returned() -> None:
    pool = FairPool(Opened, pool_size=2, timeout=1)
    held = pool.connect()
    pool.dispose()
    held.close()
    assert pool.idle == 0
