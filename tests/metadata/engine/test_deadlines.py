"""Tests of deadlines, with a PostgreSQL behind a proxy: stalled, cut off, slow, locked, lossy."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import sqlalchemy as sa

from registry.errors import DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.content import repositories
from registry.metadata.engine import deadlines, leases
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S, REQUEST_TIMEOUT_S
from registry.metadata.engine.settings import DEFAULT
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import NAME, rows, void
from tests.support.servers.postgres import Cluster
from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.anyio

BOUND = 20.0
"""Seconds within which a caller gets an answer, whatever the database does."""


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[TcpProxy]:
    with tcp_proxy(("127.0.0.1", postgres.port)) as proxy:
        yield proxy


@pytest.fixture
def direct_url(postgres: Cluster) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
async def direct(direct_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield the database without the proxy."""
    del anyio_backend
    opened = Database(direct_url)
    yield opened
    await opened.close()


@pytest.fixture
async def database(direct_url: str, proxy: TcpProxy, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield the database behind the proxy, with connections in its pools."""
    del anyio_backend
    url = parse_url(direct_url).set(port=proxy.port)
    opened = Database(url.render_as_string(hide_password=False))
    await serves(opened)
    yield opened
    proxy.resume()
    await opened.close()


def look(tx: Transaction) -> list[str]:
    return repositories.list_names(tx, 9, "")


def bear(tx: Transaction) -> None:
    void(repositories.ensure(tx, NAME))


async def serves(database: Database) -> None:
    await asyncio.gather(*(database.read(look) for _ in range(16)))
    await asyncio.gather(*(database.write(bear, actor="ann") for _ in range(16)))


async def refused(*asked: Awaitable[object]) -> float:
    """Require that all fail and the loop is never blocked. Return the seconds that it took."""
    lag = 0.0

    async def watch() -> None:
        nonlocal lag
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag = max(lag, time.monotonic() - before)

    watching = asyncio.ensure_future(watch())
    started = time.monotonic()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    took = time.monotonic() - started
    watching.cancel()
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailableError] * len(asked)
    assert lag < 1
    return took


def crowd(database: Database) -> list[Awaitable[object]]:
    """Start many more requests than there are threads."""
    return [
        *(database.read(look) for _ in range(50)),
        *(database.write(bear, actor="ann") for _ in range(50)),
    ]


async def test_a_stalled_server_keeps_nobody_waiting_however_many_ask(
    database: Database, proxy: TcpProxy
) -> None:
    proxy.stall()
    # First the open connections stall, then the new ones.
    assert REQUEST_TIMEOUT_S - 0.5 < await refused(*crowd(database)) < BOUND
    assert await refused(*crowd(database)) < BOUND
    proxy.resume()
    async with asyncio.timeout(BOUND):
        await serves(database)


async def test_without_patience_the_same_stall_hangs(
    database: Database, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines.CancellableCall, "abandon", lambda _: True)  # nothing is closed
    proxy.stall()
    asked = asyncio.gather(*(database.read(look) for _ in range(9)), return_exceptions=True)
    done, _ = await asyncio.wait([asked], timeout=6)
    proxy.resume()
    assert not done
    await asked


async def test_threads_are_free_again_although_the_stall_goes_on(
    database: Database, proxy: TcpProxy
) -> None:
    """A network that drops all packets stays broken: only new connections get through."""
    proxy.stall()
    await refused(*crowd(database))
    threads = [t for t in threading.enumerate() if t.name.startswith("sql-")]
    assert len(threads) >= DEFAULT.read_connections + DEFAULT.write_connections
    proxy.refuse()
    proxy.resume()
    proxy.accept()
    async with asyncio.timeout(BOUND):
        await serves(database)


async def test_what_was_cut_off_is_made_anew_unseen(database: Database, proxy: TcpProxy) -> None:
    proxy.cut()
    await serves(database)


async def test_who_was_failed_once_does_not_wait_as_long_again(
    database: Database, proxy: TcpProxy
) -> None:
    async def request() -> None:
        try:
            await database.write(bear, actor="ann")
        finally:
            with pytest.raises(DatabaseUnavailableError):
                await database.write(lambda tx: leases.release(tx, "a", "b"), actor="ann")
            with pytest.raises(DatabaseUnavailableError):
                await database.read(look)

    proxy.stall()
    assert await refused(request(), request()) < 3 * REQUEST_TIMEOUT_S
    proxy.resume()


async def test_who_was_failed_is_served_when_all_is_well(
    database: Database, proxy: TcpProxy
) -> None:
    proxy.refuse()
    await refused(database.read(look))
    with pytest.raises(DatabaseUnavailableError):
        await database.read(look)
    proxy.accept()
    for _ in range(3):
        assert await database.read(look) == [str(NAME)]


async def test_a_slow_server_is_used_or_told(database: Database, proxy: TcpProxy) -> None:
    proxy.delay(0.2)
    assert await database.read(look) == [str(NAME)]

    def many(tx: Transaction) -> None:
        for _ in range(100):
            look(tx)

    assert await refused(database.write(many, actor="ann"), database.read(many)) < BOUND
    proxy.delay(0)
    await serves(database)


@pytest.fixture
def held(direct_url: str) -> Iterator[None]:
    """Lock the repository's row in another session."""
    engine = sa.create_engine(direct_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.select(tables.repositories).with_for_update())
        yield


async def test_nobody_waits_for_a_lock_that_another_keeps(database: Database, held: None) -> None:
    del held

    def lock(tx: Transaction) -> None:
        void(repositories.find(tx, NAME, lock=True))

    assert await refused(*(database.write(lock, actor="ann") for _ in range(50))) < BOUND
    assert await database.read(look) == [str(NAME)]
    # Their connections are intact, because the server itself reported the error.
    (ended,) = await rows(database, tables.repositories)
    assert ended.name == NAME


def nap(seconds: float) -> Callable[[Transaction], object]:
    return lambda tx: tx.execute(sa.select(sa.func.pg_sleep(seconds))).scalars().all()


async def test_a_statement_that_takes_too_long_is_ended(database: Database) -> None:
    assert await refused(database.read(nap(30)), database.write(nap(30), actor="ann")) < BOUND


async def test_slow_answers_in_a_row_are_waited_for_together(database: Database) -> None:
    async def request() -> None:
        await database.read(nap(2))
        await database.read(nap(2))

    assert await refused(request(), request()) < BOUND


async def test_statements_that_take_too_long_together_are_ended(
    database: Database, direct: Database
) -> None:
    def naps(tx: Transaction) -> None:
        for _ in range(3):
            nap(2)(tx)

    def work(tx: Transaction) -> None:
        repositories.ensure(tx, RepositoryName("never"))
        naps(tx)

    assert await refused(database.write(work, actor="ann"), database.read(naps)) < BOUND
    assert await direct.read(look) == [str(NAME)]


async def test_long_work_is_waited_for_while_others_are_answered(database: Database) -> None:
    await database.write(nap(REQUEST_TIMEOUT_S + 1), actor="ann", timeout_s=LONG_TIMEOUT_S)


async def test_long_work_is_not_waited_for_when_nobody_is_answered(
    database: Database, proxy: TcpProxy
) -> None:
    started = asyncio.ensure_future(database.write(nap(50), actor="ann", timeout_s=LONG_TIMEOUT_S))
    await asyncio.sleep(0.5)
    proxy.stall()
    assert await refused(started) < BOUND


async def test_a_read_that_nobody_waits_for_frees_its_thread(
    database: Database, proxy: TcpProxy
) -> None:
    proxy.stall()
    for _ in range(DEFAULT.read_connections):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await database.read(look)
    await asyncio.sleep(REQUEST_TIMEOUT_S + 0.5)
    proxy.refuse()  # open connections never get an answer
    proxy.resume()
    proxy.accept()
    async with asyncio.timeout(BOUND):
        await database.read(look)


# Commits whose answer is lost.


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_commit_whose_answer_is_lost_is_told_and_not_tried_again(
    database: Database, direct: Database, proxy: TcpProxy, *, delivered: bool
) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> None:
        attempts.append(1)
        repositories.ensure(tx, RepositoryName("maybe"))

    lost = proxy.lose_answer(b"COMMIT\0", delivered=delivered)
    await refused(database.write(work, actor="ann"))
    assert lost.is_set()
    assert attempts == [1]
    assert ("maybe" in await direct.read(look)) is delivered
    await database.write(work, actor="ann")
    assert await direct.read(look) == ["maybe", str(NAME)]


async def test_what_is_lost_before_the_commit_is_tried_again(
    database: Database, direct: Database, proxy: TcpProxy
) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> None:
        attempts.append(1)
        repositories.ensure(tx, RepositoryName("surely"))

    lost = proxy.lose_answer(b"INSERT INTO repositories")
    await database.write(work, actor="ann")
    assert lost.is_set()
    assert attempts == [1, 1]
    assert await direct.read(look) == ["surely", str(NAME)]


async def test_a_client_that_vanished_in_the_middle_holds_its_locks_no_longer(
    database: Database, direct: Database, proxy: TcpProxy
) -> None:
    """The lock on the change counter matters most: every other write waits for it."""
    locked = threading.Event()

    def work(tx: Transaction) -> None:
        repositories.find(tx, NAME, lock=True)
        proxy.stall()
        locked.set()
        look(tx)

    vanished = asyncio.ensure_future(database.write(work, actor="ann"))
    await asyncio.to_thread(locked.wait, 10)
    await refused(vanished)
    async with asyncio.timeout(BOUND):
        while True:
            try:
                await direct.write(
                    lambda tx: void(repositories.find(tx, NAME, lock=True)), actor="bob"
                )
            except DatabaseUnavailableError:
                continue
            break


# Real conflicts.


async def test_a_deadlock_is_tried_again(database: Database) -> None:
    names = [RepositoryName("a"), RepositoryName("b")]
    for name in names:
        await database.write(lambda tx, name=name: void(repositories.ensure(tx, name)), actor="ann")  # type: ignore[misc]
    meet = threading.Barrier(2)
    attempts: list[int] = []

    def crossing(first: RepositoryName, second: RepositoryName) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            attempts.append(1)
            repositories.find(tx, first, lock=True)
            if len(attempts) <= 2:
                meet.wait(10)
            repositories.find(tx, second, lock=True)

        return work

    a, b = names
    await asyncio.gather(
        database.write(crossing(a, b), actor="ann"), database.write(crossing(b, a), actor="bob")
    )
    assert len(attempts) == 3


async def test_a_serialization_failure_is_tried_again(database: Database, direct: Database) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> None:
        tx.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        attempts.append(1)
        look(tx)
        if len(attempts) == 1:
            change = sa.update(tables.repositories).values(created_at=1)
            asyncio.run(direct.write(lambda tx: void(tx.execute(change)), actor="bob"))
        tx.execute(sa.update(tables.repositories).values(created_at=2))

    await database.write(work, actor="ann")
    assert attempts == [1, 1]
    (row,) = await rows(direct, tables.repositories)
    assert row.created_at == 2
