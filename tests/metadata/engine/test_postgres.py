"""Tests of PostgreSQL stopping and starting, and of repeated transactions after conflicts."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import cast

import psycopg
import pytest
import sqlalchemy as sa

from registry.errors import DatabaseFullError, DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.content import repositories
from registry.metadata.engine import connections, leases, postgres
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import NAME, race, rows
from tests.support.missing import missing
from tests.support.servers.postgres import Cluster, find_binaries, run_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

PATIENCE = 30.0
"""Seconds within which a request learns that the database is away."""


@pytest.fixture(scope="module")
def mortal() -> Iterator[Cluster]:
    """Yield a server of this module's own, to stop and to kill."""
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL")
    with run_cluster(binaries) as cluster:
        yield cluster


@pytest.fixture
async def there(mortal: Cluster, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield a database that has served, with connections in its pools."""
    del anyio_backend
    with mortal.database() as url:
        database = Database(url)
        nap = sa.select(sa.func.pg_sleep(0.1))
        await asyncio.gather(*(database.read(lambda tx: tx.execute(nap).all()) for _ in range(8)))
        await race([database], [claim] * 16)
        yield database
        await database.close()


def look(tx: Transaction) -> list[str]:
    return repositories.list_names(tx, 9, "")


def claim(tx: Transaction) -> bool:
    return leases.claim(tx, "gc", tx.actor, 60)


async def refused(database: Database) -> None:
    """Require that reads and writes fail with the right error in time."""
    started = time.monotonic()
    outcomes = await asyncio.gather(
        *(database.read(look) for _ in range(10)),
        *(database.write(claim, actor="ann") for _ in range(10)),
        return_exceptions=True,
    )
    assert time.monotonic() - started < PATIENCE
    for outcome in outcomes:
        assert type(outcome) is DatabaseUnavailableError, outcome


async def serves(database: Database) -> None:
    await asyncio.gather(*(database.read(look) for _ in range(16)))
    await race([database], [lambda tx: repositories.ensure(tx, NAME)] * 16)


async def test_a_stopped_server_is_told_and_missed_no_longer_than_it_is_away(
    mortal: Cluster, there: Database
) -> None:
    mortal.stop()
    try:
        await refused(there)
        await refused(there)
    finally:
        mortal.start()
    await serves(there)


async def test_a_killed_server_takes_its_transactions_and_nothing_else(
    mortal: Cluster, there: Database
) -> None:
    await there.write(claim, actor="acknowledged")

    def work(tx: Transaction) -> None:
        repositories.ensure(tx, NAME)
        tx.execute(sa.select(sa.func.pg_sleep(30)))

    running = asyncio.ensure_future(there.write(work, actor="ann"))
    reading = asyncio.ensure_future(
        there.read(lambda tx: tx.execute(sa.select(sa.func.pg_sleep(30))).scalars().all())
    )
    await asyncio.sleep(0.5)
    mortal.kill()
    try:
        async with asyncio.timeout(PATIENCE):
            for task in (running, reading):
                with pytest.raises(DatabaseUnavailableError):
                    await task
        await refused(there)
    finally:
        mortal.start()
    assert await there.read(look) == []
    assert len(await rows(there, tables.leases)) == 1
    await serves(there)


async def test_connections_that_the_server_ended_are_replaced(there: Database) -> None:
    ended = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'moorage' AND pid != pg_backend_pid()"
    )
    assert await there.read(lambda tx: tx.execute(ended).scalar_one()) >= 2
    await serves(there)


async def test_nobody_has_to_wait_for_a_frozen_server(there: Database) -> None:
    """A read is abandoned with its caller: readiness has to answer."""

    def pause(number: int) -> None:
        for backend in backends:
            os.kill(backend, number)

    backends = await there.read(
        lambda tx: list(
            tx.execute(
                sa.text("SELECT pid FROM pg_stat_activity WHERE application_name = 'moorage'")
            ).scalars()
        )
    )
    pause(signal.SIGSTOP)
    thaw = threading.Timer(3, pause, [signal.SIGCONT])
    thaw.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await there.read(look)
    given_up_before_the_thaw = thaw.is_alive()
    thaw.cancel()
    pause(signal.SIGCONT)
    assert given_up_before_the_thaw
    await serves(there)


@pytest.mark.parametrize("state", ["40001", "40P01", "23503", "23505"])
async def test_a_conflict_is_tried_again(there: Database, state: str) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> int:
        repositories.ensure(tx, NAME)
        attempts.append(tx.now)
        if len(attempts) < postgres.ATTEMPTS:
            fail(tx, state)
        return len(attempts)

    assert await there.write(work, actor="ann") == postgres.ATTEMPTS
    assert attempts == sorted(set(attempts))
    (event,) = await rows(there, tables.change_feed)
    assert event.revision == 1


async def test_a_conflict_is_not_tried_for_ever(there: Database) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> None:
        attempts.append(tx.now)
        fail(tx, "40P01")

    with pytest.raises(DatabaseUnavailableError):
        await there.write(work, actor="ann")
    assert len(attempts) == postgres.ATTEMPTS


async def test_no_other_error_is_tried_again(there: Database) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> None:
        attempts.append(tx.now)
        fail(tx, "57014")

    with pytest.raises(DatabaseUnavailableError):
        await there.write(work, actor="ann")
    assert len(attempts) == 1


async def test_a_full_disk_is_called_so(there: Database) -> None:
    with pytest.raises(DatabaseFullError):
        await there.write(lambda tx: fail(tx, "53100"), actor="ann")


def fail(tx: Transaction, state: str) -> None:
    """Let the server itself raise the error."""
    raising = f"BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{state}'; END"
    tx.execute(sa.text(f"DO $$ {raising} $$"))


def test_neither_statement_nor_network_may_hang(mortal: Cluster) -> None:
    engine = connections.open_engine(parse_url(mortal.url("moorage_template")))
    with engine.connect() as connection:
        raw = cast("psycopg.Connection", connection.connection.dbapi_connection)
        parameters = raw.info.get_parameters()
        limits = {"connect_timeout": 3, "tcp_user_timeout": 4000, "keepalives_idle": 5}
        assert {name: int(parameters[name]) for name in limits} == limits
        shown = {
            name: str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())
            for name in (
                *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
                *("tcp_keepalives_idle", "transaction_isolation"),
            )
        }
        assert shown == {
            "statement_timeout": "3s",
            "lock_timeout": "2500ms",
            "idle_in_transaction_session_timeout": "4s",
            "tcp_keepalives_idle": "10",
            "transaction_isolation": "read committed",
        }
    engine.dispose()


async def test_a_deletion_has_its_turn_before_the_pushes_that_came_after_it(
    there: Database,
) -> None:
    """Row locks are not fair: shared lockers overtake a waiting exclusive locker."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    holds, may_go = threading.Event(), threading.Event()
    order: list[str] = []

    def push_first(tx: Transaction) -> None:
        repositories.ensure(tx, NAME)
        holds.set()
        assert may_go.wait(30)
        order.append("push before")

    def delete(tx: Transaction) -> None:
        assert repositories.find(tx, NAME, lock=True) is not None
        order.append("deletion")

    def push(tx: Transaction) -> None:
        assert repositories.find(tx, NAME, keep=True) is not None
        order.append("push after")

    async def come_to_wait(number: int) -> None:
        async with asyncio.timeout(2):
            while await there.read(lambda tx: tx.execute(waiting).scalar_one()) < number:
                assert len(order) == 0
                await asyncio.sleep(0.01)

    await there.write(lambda tx: repositories.ensure(tx, NAME), actor="ann")
    works = [asyncio.ensure_future(there.write(push_first, actor="ann"))]
    try:
        await asyncio.to_thread(holds.wait)
        for number, work in enumerate((delete, push), 1):
            works.append(asyncio.ensure_future(there.write(work, actor="ann")))
            await come_to_wait(number)
    finally:
        may_go.set()
        await asyncio.gather(*works)
    assert order == ["push before", "deletion", "push after"]
