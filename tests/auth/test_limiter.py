"""The limit of failed sign-ins, on both databases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from registry import clock
from registry.auth.client_address import ClientAddress
from registry.auth.credentials.limiter import FEW, LINE, WINDOW, SignInLimiter
from registry.errors import TooManyRequestsError
from registry.metadata import tables
from registry.metadata.engine.database import Database
from tests.metadata.rows import rows

pytestmark = pytest.mark.anyio

MOST = 5
HOME, CAFE = ClientAddress("192.0.2.1", "r1"), ClientAddress("198.51.100.1", "r2")
ANN, BOB = "hash of ann", "hash of bob"


@dataclass
class Time:
    """A clock that only the test advances."""

    now: int

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time(clock.now_us())
    monkeypatch.setattr(clock, "now_us", lambda: time.now)
    return time


@pytest.fixture
async def database(database_url: str, time: Time, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend, time  # The database reads the clock that is patched when it opens.
    opened = Database(database_url)
    yield opened
    await opened.close()


class LimitedSignIn:
    """The limiter of one worker."""

    def __init__(self, database: Database, most: int = MOST) -> None:
        self.database = database
        self.limiter = SignInLimiter(most)

    async def check(self, origin: ClientAddress, account: str) -> float | None:
        return await self.database.read(lambda tx: self.limiter.check(tx, origin, account))

    async def fail(self, origin: ClientAddress, account: str, known: str | None = None) -> None:
        """Try a wrong password.

        Raises TooManyRequestsError if the limiter refuses the attempt before the password is
        checked.
        """
        with self.limiter.attempt(origin, account):
            await self.check(origin, account)
            await self.database.write(
                lambda tx: self.limiter.fail(tx, origin, account, known), actor=""
            )

    async def is_let_in(self, origin: ClientAddress, account: str = ANN) -> bool:
        """Try the right password and return whether the attempt is allowed."""
        try:
            with self.limiter.attempt(origin, account):
                await self.check(origin, account)
        except TooManyRequestsError:
            return False
        return True


@pytest.fixture
def sign_in(database: Database) -> LimitedSignIn:
    return LimitedSignIn(database)


async def test_an_account_that_fails_too_often_waits_where_it_failed(
    sign_in: LimitedSignIn, time: Time
) -> None:
    for _ in range(MOST):
        assert await sign_in.is_let_in(HOME)
        await sign_in.fail(HOME, ANN)
        time.pass_by(1)
    with pytest.raises(TooManyRequestsError) as caught:
        await sign_in.fail(HOME, ANN)
    # The caller must wait until the oldest failure no longer counts.
    assert caught.value.retry_after == WINDOW - MOST
    assert await sign_in.is_let_in(CAFE)
    time.pass_by(WINDOW - MOST + 0.001)
    assert await sign_in.is_let_in(HOME)


async def test_no_other_account_is_kept_out(sign_in: LimitedSignIn) -> None:
    """Any number of failures for any number of accounts blocks no other account."""
    for account in (ANN, *(f"account {number}" for number in range(20))):
        for _ in range(MOST * 2):
            with contextlib.suppress(TooManyRequestsError):
                await sign_in.fail(HOME, account)
    assert not await sign_in.is_let_in(HOME, ANN)
    assert await sign_in.is_let_in(HOME, BOB)


async def test_an_address_that_attacks_gets_few_tries_at_each_account(
    sign_in: LimitedSignIn,
) -> None:
    for number in range(MOST):
        assert await sign_in.check(HOME, BOB) is None
        await sign_in.fail(HOME, f"account {number}")
    for _ in range(FEW):
        assert await sign_in.is_let_in(HOME, BOB)
        await sign_in.fail(HOME, BOB)
    assert not await sign_in.is_let_in(HOME, BOB)
    assert await sign_in.is_let_in(CAFE, BOB)


async def test_the_pause_of_an_address_that_attacks_grows(sign_in: LimitedSignIn) -> None:
    pauses = []
    for number in range(MOST * 3):
        with sign_in.limiter.attempt(HOME, f"account {number}"):
            pauses.append(await sign_in.check(HOME, f"account {number}"))
        await sign_in.fail(HOME, f"account {number}")
    assert pauses == [None] * MOST + [number / MOST for number in range(MOST, MOST * 3)]
    with sign_in.limiter.attempt(CAFE, BOB):
        assert await sign_in.check(CAFE, BOB) is None


async def test_its_passwords_are_checked_one_at_a_time(sign_in: LimitedSignIn) -> None:
    limiter, under_way, most = sign_in.limiter, 0, 0
    order: list[str] = []

    async def check(origin: ClientAddress, name: str, *, right: bool = False) -> None:
        nonlocal under_way, most
        async with limiter.turn(origin, 0.05) as turn:
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            turn.is_right = right
            under_way -= 1
        order.append(name)

    names = [str(number) for number in range(5)]
    await asyncio.gather(*(check(HOME, name) for name in names))
    assert (order, most) == (names, 1)
    async with limiter.turn(HOME, 0.05):
        await asyncio.wait_for(check(CAFE, "elsewhere", right=True), 10)
    waiting = [asyncio.create_task(check(HOME, "one of many")) for _ in range(LINE)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequestsError):
        await check(HOME, "one too many")
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await asyncio.sleep(0.2)
    assert limiter._queues == {}


async def test_where_nothing_is_wrong_nobody_waits_for_others(sign_in: LimitedSignIn) -> None:
    async with sign_in.limiter.turn(HOME, None), sign_in.limiter.turn(HOME, None):
        assert sign_in.limiter._queues == {}


async def test_whoever_waits_does_not_prolong_it(sign_in: LimitedSignIn, time: Time) -> None:
    for _ in range(MOST):
        await sign_in.fail(HOME, ANN)
    for _ in range(int(WINDOW) // 10):
        assert not await sign_in.is_let_in(HOME)
        time.pass_by(10)
    time.pass_by(0.001)
    assert await sign_in.is_let_in(HOME)


async def test_the_wait_is_known_without_the_database(sign_in: LimitedSignIn, time: Time) -> None:
    for _ in range(MOST):
        await sign_in.fail(HOME, ANN)
    assert not await sign_in.is_let_in(HOME)
    with pytest.raises(TooManyRequestsError) as caught, sign_in.limiter.attempt(HOME, ANN):
        raise AssertionError
    assert caught.value.retry_after == WINDOW
    with sign_in.limiter.attempt(HOME, BOB):
        pass
    time.pass_by(WINDOW + 1)
    with sign_in.limiter.attempt(HOME, ANN):
        pass


async def test_all_workers_count_together(sign_in: LimitedSignIn, database_url: str) -> None:
    other = LimitedSignIn(Database(database_url))
    for number in range(MOST):
        await (sign_in, other)[number % 2].fail(HOME, ANN)
    assert not await sign_in.is_let_in(HOME)
    assert not await other.is_let_in(HOME)
    await other.database.close()


async def test_an_attacker_does_not_lock_her_out(sign_in: LimitedSignIn) -> None:
    """Failures from many other addresses do not block a user at the user's own address."""
    for number in range(MOST * 3):
        with contextlib.suppress(TooManyRequestsError):
            await sign_in.fail(ClientAddress(f"203.0.113.{number}"), ANN)
    assert await sign_in.is_let_in(HOME, ANN)
    for _ in range(FEW - 1):
        await sign_in.fail(HOME, ANN)
        assert await sign_in.is_let_in(HOME, ANN)


async def test_an_attacker_gets_few_tries_from_each_address(sign_in: LimitedSignIn) -> None:
    for number in range(MOST):
        await sign_in.fail(ClientAddress(f"203.0.113.{number}"), ANN)
    for number in range(100, 103):
        origin = ClientAddress(f"203.0.113.{number}")
        for _ in range(FEW):
            await sign_in.fail(origin, ANN)
        with pytest.raises(TooManyRequestsError):
            await sign_in.fail(origin, ANN)
        assert await sign_in.is_let_in(origin, BOB)


async def test_tries_at_once_are_no_more_than_one_after_the_other(sign_in: LimitedSignIn) -> None:
    with contextlib.ExitStack() as trying:
        for _ in range(MOST):
            trying.enter_context(sign_in.limiter.attempt(HOME, ANN))
        with pytest.raises(TooManyRequestsError) as caught:
            trying.enter_context(sign_in.limiter.attempt(HOME, ANN))
        assert caught.value.retry_after == 1
        with sign_in.limiter.attempt(CAFE, ANN):
            pass
        with sign_in.limiter.attempt(HOME, BOB):
            assert await sign_in.check(HOME, BOB) == 0  # sequential, so no delay
    assert await sign_in.is_let_in(HOME)
    assert sign_in.limiter._trying == {}


async def test_failures_and_tries_under_way_count_together(sign_in: LimitedSignIn) -> None:
    for _ in range(MOST - 2):
        await sign_in.fail(HOME, ANN)
    with sign_in.limiter.attempt(HOME, ANN), sign_in.limiter.attempt(HOME, ANN):
        await sign_in.check(HOME, ANN)
        with sign_in.limiter.attempt(HOME, ANN), pytest.raises(TooManyRequestsError):
            await sign_in.check(HOME, ANN)


async def test_a_network_of_ipv6_is_one_address(sign_in: LimitedSignIn) -> None:
    for number in range(MOST):
        await sign_in.fail(ClientAddress(f"2001:db8:1:2::{number}"), ANN)
    assert not await sign_in.is_let_in(ClientAddress("2001:db8:1:2:ffff::1"), ANN)
    assert await sign_in.is_let_in(ClientAddress("2001:db8:1:3::1"), ANN)


async def test_no_limit(database: Database) -> None:
    sign_in = LimitedSignIn(database, 0)
    for _ in range(20):
        await sign_in.fail(HOME, ANN)
    assert await sign_in.is_let_in(HOME)


async def test_old_failures_are_forgotten(sign_in: LimitedSignIn, time: Time) -> None:
    await sign_in.fail(HOME, ANN)
    time.pass_by(WINDOW + 1)
    await sign_in.fail(HOME, ANN)
    assert len(await rows(sign_in.database, tables.sign_in_failures)) == 1


async def test_the_audit_log_name_only_accounts_that_there_are(sign_in: LimitedSignIn) -> None:
    await sign_in.fail(HOME, ANN, "ann")
    await sign_in.fail(CAFE, "hash of a password", None)
    first, second = await rows(sign_in.database, tables.audit_log)
    assert (first.actor, first.kind, first.target) == ("-", "sign-in.fail", "ann")
    assert (first.address, first.request_id) == ("192.0.2.1", "r1")
    assert (second.target, second.address) == ("(unknown)", "198.51.100.1")
    assert "password" not in f"{first}{second}"


async def test_what_is_remembered_is_bounded(
    sign_in: LimitedSignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.auth.credentials.limiter._MOST_WAITING", 3)
    for number in range(10):
        sign_in.limiter._remember((f"192.0.2.{number}", ANN), 1)
    assert list(sign_in.limiter._waiting) == [(f"192.0.2.{number}", ANN) for number in (7, 8, 9)]
