"""How often somebody may be wrong, on both databases."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from registry import clock
from registry.auth.limiter import FEW, WINDOW, SignInLimiter
from registry.auth.origins import Origin
from registry.errors import TooManyRequestsError
from registry.metadata import tables
from registry.metadata.database import Database
from tests.metadata.rows import rows

pytestmark = pytest.mark.anyio

MOST = 5
HOME, CAFE = Origin("192.0.2.1", "r1"), Origin("198.51.100.1", "r2")
ANN, BOB = "hash of ann", "hash of bob"


@dataclass
class Time:
    """A clock that goes when it is told to."""

    now: int

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time(clock.now())
    monkeypatch.setattr(clock, "now", lambda: time.now)
    return time


@pytest.fixture
async def database(database_url: str, time: Time, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend, time  # the database asks the clock that it finds
    opened = Database(database_url)
    yield opened
    await opened.close()


class Door:
    """One worker's limiter."""

    def __init__(self, database: Database, most: int = MOST) -> None:
        self.database = database
        self.limiter = SignInLimiter(most)

    async def check(self, origin: Origin, account: str) -> None:
        await self.database.read(lambda tx: self.limiter.check(tx, origin, account))

    async def fail(self, origin: Origin, account: str, known: str | None = None) -> None:
        """A wrong password; TooManyRequestsError where it is not even looked at."""
        with self.limiter.attempt(origin):
            await self.check(origin, account)
            await self.database.write(
                lambda tx: self.limiter.fail(tx, origin, account, known), actor=""
            )

    async def is_let_in(self, origin: Origin, account: str = ANN) -> bool:
        """The right password."""
        try:
            with self.limiter.attempt(origin):
                await self.check(origin, account)
        except TooManyRequestsError:
            return False
        return True


@pytest.fixture
def door(database: Database) -> Door:
    return Door(database)


async def test_an_address_that_fails_too_often_waits(door: Door, time: Time) -> None:
    for number in range(MOST):
        assert await door.is_let_in(HOME)
        await door.fail(HOME, f"account {number}")
        time.pass_by(1)
    with pytest.raises(TooManyRequestsError) as caught:
        await door.fail(HOME, ANN)
    # Until the oldest of them no longer counts.
    assert caught.value.retry_after == WINDOW - MOST
    assert await door.is_let_in(CAFE)
    time.pass_by(WINDOW - MOST + 0.001)
    assert await door.is_let_in(HOME)


async def test_whoever_waits_does_not_prolong_it(door: Door, time: Time) -> None:
    for _ in range(MOST):
        await door.fail(HOME, ANN)
    for _ in range(int(WINDOW) // 10):
        assert not await door.is_let_in(HOME)
        time.pass_by(10)
    time.pass_by(0.001)
    assert await door.is_let_in(HOME)


async def test_the_wait_is_known_without_the_database(door: Door, time: Time) -> None:
    for _ in range(MOST):
        await door.fail(HOME, ANN)
    assert not await door.is_let_in(HOME)
    with pytest.raises(TooManyRequestsError) as caught, door.limiter.attempt(HOME):
        raise AssertionError
    assert caught.value.retry_after == WINDOW
    time.pass_by(WINDOW + 1)
    with door.limiter.attempt(HOME):
        pass


async def test_all_workers_count_together(door: Door, database_url: str) -> None:
    other = Door(Database(database_url))
    for number in range(MOST):
        await (door, other)[number % 2].fail(HOME, ANN)
    assert not await door.is_let_in(HOME)
    assert not await other.is_let_in(HOME)
    await other.database.close()


async def test_an_attacker_does_not_lock_her_out(door: Door) -> None:
    """From as many addresses as he likes: from hers she signs in."""
    for number in range(MOST * 3):
        with contextlib.suppress(TooManyRequestsError):
            await door.fail(Origin(f"203.0.113.{number}"), ANN)
    assert await door.is_let_in(HOME, ANN)
    for _ in range(FEW - 1):
        await door.fail(HOME, ANN)
        assert await door.is_let_in(HOME, ANN)


async def test_an_attacker_gets_few_tries_from_each_address(door: Door) -> None:
    for number in range(MOST):
        await door.fail(Origin(f"203.0.113.{number}"), ANN)
    for number in range(100, 103):
        origin = Origin(f"203.0.113.{number}")
        for _ in range(FEW):
            await door.fail(origin, ANN)
        with pytest.raises(TooManyRequestsError):
            await door.fail(origin, ANN)
        assert await door.is_let_in(origin, BOB)


async def test_tries_at_once_are_no_more_than_one_after_the_other(door: Door) -> None:
    with contextlib.ExitStack() as trying:
        for _ in range(MOST):
            trying.enter_context(door.limiter.attempt(HOME))
        with pytest.raises(TooManyRequestsError) as caught:
            trying.enter_context(door.limiter.attempt(HOME))
        assert caught.value.retry_after == 1
        with door.limiter.attempt(CAFE):
            pass
    assert await door.is_let_in(HOME)
    assert door.limiter._trying == {}


async def test_failures_and_tries_under_way_count_together(door: Door) -> None:
    for _ in range(MOST - 2):
        await door.fail(HOME, ANN)
    with door.limiter.attempt(HOME), door.limiter.attempt(HOME):
        await door.check(HOME, ANN)
        with door.limiter.attempt(HOME), pytest.raises(TooManyRequestsError):
            await door.check(HOME, ANN)


async def test_a_network_of_ipv6_is_one_address(door: Door) -> None:
    for number in range(MOST):
        await door.fail(Origin(f"2001:db8:1:2::{number}"), ANN)
    assert not await door.is_let_in(Origin("2001:db8:1:2:ffff::1"), BOB)
    assert await door.is_let_in(Origin("2001:db8:1:3::1"), BOB)


async def test_no_limit(database: Database) -> None:
    door = Door(database, 0)
    for _ in range(20):
        await door.fail(HOME, ANN)
    assert await door.is_let_in(HOME)


async def test_old_failures_are_forgotten(door: Door, time: Time) -> None:
    await door.fail(HOME, ANN)
    time.pass_by(WINDOW + 1)
    await door.fail(HOME, ANN)
    assert len(await rows(door.database, tables.sign_in_failures)) == 1


async def test_the_books_name_only_accounts_that_there_are(door: Door) -> None:
    await door.fail(HOME, ANN, "ann")
    await door.fail(CAFE, "hash of a password", None)
    first, second = await rows(door.database, tables.audit)
    assert (first.actor, first.kind, first.target) == ("-", "sign-in.fail", "ann")
    assert (first.address, first.request_id) == ("192.0.2.1", "r1")
    assert (second.target, second.address) == ("(unknown)", "198.51.100.1")
    assert "password" not in f"{first}{second}"


async def test_what_is_remembered_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.auth.limiter._MOST_WAITING", 3)
    for number in range(10):
        door.limiter._remember(f"192.0.2.{number}", 1)
    assert list(door.limiter._waiting) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]
