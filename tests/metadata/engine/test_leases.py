"""Tests of leases: one holder at a time, extended by the holder, free after they expire."""

from collections.abc import Callable

import pytest

from registry import clock
from registry.metadata import tables
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import race, rows
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

SECOND = 1_000_000


def claim(holder: str, at: float, seconds: float = 60) -> Callable[[Transaction], bool]:
    """Claim at `at`, in seconds of the test's own clock."""

    def work(tx: Transaction) -> bool:
        tx.now = int(at * SECOND)
        return leases.claim(tx, "gc", holder, seconds)

    return work


@pytest.mark.usefixtures("own_time")
async def test_has_one_holder_until_it_runs_out(database: Database) -> None:
    steps = [
        ("ann", 0, True),
        ("bob", 1, False),
        ("bob", 60, False),  # expires after this moment, not at it
        ("bob", 60.1, True),
        ("ann", 60.2, False),
    ]
    for holder, at, taken in steps:
        assert await database.write(claim(holder, at), actor=holder) is taken


@pytest.mark.usefixtures("own_time")
async def test_is_extended_by_its_holder_alone(database: Database) -> None:
    steps = [
        ("ann", 0, True),
        ("ann", 50, True),
        ("bob", 70, False),
        ("ann", 100, True),
        ("bob", 161, True),
    ]
    for holder, at, taken in steps:
        assert await database.write(claim(holder, at), actor=holder) is taken
    (row,) = await rows(database, tables.leases)
    assert (row.name, row.holder, row.expires_at) == ("gc", "bob", 221 * SECOND)


@pytest.mark.usefixtures("own_time")
async def test_is_given_back_by_its_holder_alone(database: Database) -> None:
    await database.write(claim("ann", 0), actor="ann")
    await database.write(lambda tx: leases.release(tx, "gc", "bob"), actor="bob")
    assert not await database.write(claim("bob", 1), actor="bob")
    await database.write(lambda tx: leases.release(tx, "gc", "ann"), actor="ann")
    assert await database.write(claim("bob", 2), actor="bob")


async def test_others_are_others(database: Database) -> None:
    def work(tx: Transaction) -> list[bool]:
        return [leases.claim(tx, name, holder, 60) for name in ("gc", "scrub") for holder in "ab"]

    assert await database.write(work, actor="ann") == [True, False, True, False]


@pytest.mark.usefixtures("own_time")
async def test_of_many_that_claim_at_once_one_gets_it(replicas: list[Database]) -> None:
    for turn in range(5):
        claims = [claim(f"holder {number}", turn * 100) for number in range(16)]
        taken = await race(replicas, claims)
        assert taken.count(True) == 1
        (row,) = await rows(replicas[0], tables.leases)
        assert row.holder == f"holder {taken.index(True)}"


async def test_leaves_no_trace_in_the_feed(database: Database) -> None:
    await database.write(claim("ann", 0), actor="ann")
    assert await rows(database, tables.change_feed) == []


async def test_replicas_whose_clocks_differ_agree(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the database counts, not that of the caller."""
    real = clock.now_us
    with postgres.database() as url:
        database = Database(url)

        def take(tx: Transaction) -> bool:
            return leases.claim(tx, "gc", tx.actor, 60)

        assert await database.write(take, actor="ann")
        for ahead in (3600, -3600):
            monkeypatch.setattr(clock, "now_us", lambda ahead=ahead: real() + ahead * SECOND)
            assert not await database.write(take, actor="bob")
            assert await database.write(take, actor="ann")
            (row,) = await rows(database, tables.leases)
            assert abs(row.expires_at - real() - 60 * SECOND) < 30 * SECOND
        await database.close()
