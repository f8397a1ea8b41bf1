"""Password hashing: format, concurrency and duration."""

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from registry.auth.credentials import passwords as module
from registry.auth.credentials.passwords import THREADS, WAITING, Passwords, require_usable
from registry.auth.settings import LONGEST_PASSWORD as LONGEST
from registry.auth.settings import SHORTEST_PASSWORD as SHORTEST
from registry.errors import PasswordInvalidError, TooManyRequestsError

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"
LONG = "long" * 18  # bcrypt reads only 72 bytes.


@pytest.fixture(autouse=True)
def cheap_passwords() -> None:
    """Hash passwords as servers do."""


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


def htpasswd(password: str, prefix: str = "2y") -> str:
    made = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return made.replace("$2b$", f"${prefix}$")


async def test_it_is_argon2id(passwords: Passwords) -> None:
    stored = await passwords.hash(RIGHT)
    parameters = extract_parameters(stored)
    assert parameters.type is Type.ID
    assert parameters.memory_cost >= 19 * 1024
    assert parameters.time_cost >= 2
    assert parameters.salt_len >= 16
    assert parameters.hash_len >= 32
    assert not passwords.is_outdated(stored)


async def test_the_right_one_and_no_other(passwords: Passwords) -> None:
    stored = await passwords.hash(RIGHT)
    assert await passwords.verify(RIGHT, stored)
    for wrong in ("", RIGHT + " ", RIGHT.upper(), RIGHT[:-1], stored):
        assert not await passwords.verify(wrong, stored)
    assert await passwords.hash(RIGHT) != stored


async def test_long_passwords_differ_after_72_bytes(passwords: Passwords) -> None:
    stored = await passwords.hash(LONG + "a")
    assert await passwords.verify(LONG + "a", stored)
    assert not await passwords.verify(LONG + "b", stored)
    assert not await passwords.verify(LONG, stored)


async def test_nobody_has_a_password(passwords: Passwords) -> None:
    assert not await passwords.verify(RIGHT, None)
    assert not await passwords.verify("", None)


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
async def test_an_import_is_good_until_it_is_hashed_anew(passwords: Passwords, prefix: str) -> None:
    stored = htpasswd(RIGHT, prefix)
    assert await passwords.verify(RIGHT, stored)
    assert not await passwords.verify(RIGHT + "x", stored)
    assert passwords.is_outdated(stored)


async def test_an_import_takes_no_password_that_it_cannot_tell_from_others(
    passwords: Passwords,
) -> None:
    stored = htpasswd(LONG)
    assert await passwords.verify(LONG, stored)
    assert not await passwords.verify(LONG + "a", stored)


async def test_other_parameters_are_outdated(passwords: Passwords) -> None:
    stored = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(RIGHT)
    assert await passwords.verify(RIGHT, stored)
    assert passwords.is_outdated(stored)


@pytest.mark.parametrize(
    "stored",
    [
        *("", "x", "$", "$2y$", "$2y$10$short", "$2b$99$" + "a" * 53, "$2b$02$" + "a" * 53),
        *("$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$YQ$YQ", "$argon2x$v=19$m=8,t=1,p=1$YQ$YQ", "é"),
    ],
)
async def test_a_hash_that_cannot_be_read_lets_nobody_in(passwords: Passwords, stored: str) -> None:
    assert not await passwords.verify(RIGHT, stored)
    assert not await passwords.verify("", stored)


@pytest.mark.parametrize("typed", ["\ud800", "a\x00b", "\x00", "é" * 500, "a" * 100_000])
async def test_whatever_is_typed(passwords: Passwords, typed: str) -> None:
    for stored in (await passwords.hash(RIGHT), htpasswd(RIGHT), None):
        assert not await passwords.verify(typed, stored)


@pytest.mark.parametrize("good", ["a" * SHORTEST, "a" * LONGEST, "p ss wörd", "\U0001f511" * 8])
async def test_usable(passwords: Passwords, good: str) -> None:
    require_usable(good)
    assert await passwords.verify(good, await passwords.hash(good))


@pytest.mark.parametrize(
    "bad",
    [
        *("", "a" * (SHORTEST - 1), "a" * (LONGEST + 1), "password\n", "pass\x00word"),
        *("\tpassword", "password\ud800"),
    ],
)
def test_not_usable(bad: str) -> None:
    with pytest.raises(PasswordInvalidError) as caught:
        require_usable(bad)
    assert not bad or bad not in caught.value.message


async def test_no_more_wait_than_may(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 4)
    asked = [asyncio.ensure_future(passwords.verify(RIGHT, None)) for _ in range(THREADS + 4)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequestsError) as caught:
        await passwords.verify(RIGHT, None)
    assert caught.value.retry_after >= 1
    assert await asyncio.gather(*asked) == [False] * (THREADS + 4)
    assert not await passwords.verify(RIGHT, None)
    assert WAITING >= 16


async def test_those_who_leave_make_room(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 4)
    for _ in range(3):
        asked = [asyncio.ensure_future(passwords.verify(RIGHT, None)) for _ in range(THREADS + 4)]
        await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert not await passwords.verify(RIGHT, None)
    assert passwords._busy == 0


async def test_the_loop_goes_on_meanwhile(passwords: Passwords) -> None:
    hashing = [asyncio.ensure_future(passwords.hash(RIGHT)) for _ in range(20)]
    turns = 0
    while not all(one.done() for one in hashing):
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20


def nice_value() -> int:
    """Return the nice value of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_its_threads_let_others_go_first(passwords: Passwords) -> None:
    level, name = await passwords._run(lambda: (nice_value(), threading.current_thread().name))
    assert level == max(module._NICE, nice_value())
    assert name.startswith("password")


async def test_a_process_with_a_higher_nice_value_keeps_it(passwords: Passwords) -> None:
    """A thread inherits the nice value of the one that starts it, and only root may lower it."""
    higher = max(module._NICE + 5, nice_value())

    def start_threads() -> int:
        os.setpriority(os.PRIO_PROCESS, 0, higher)
        return passwords._threads.submit(nice_value).result()

    with ThreadPoolExecutor(1) as niced:
        assert niced.submit(start_threads).result() == higher


async def test_an_unknown_user_takes_as_long(passwords: Passwords) -> None:
    """The test measures the CPU time of the one hashing thread, so other programs do not matter."""

    def measure(stored: str | None) -> float:
        began = time.thread_time()
        assert not passwords._verify("wrong password", stored)
        return time.thread_time() - began

    known = await passwords.hash(RIGHT)
    times: dict[str | None, list[float]] = {known: [], None: []}
    for _ in range(15):
        for stored, taken in times.items():
            taken.append(await passwords._run(lambda stored=stored: measure(stored)))  # type: ignore[misc]
    ratio = statistics.median(times[None]) / statistics.median(times[known])
    assert 0.7 < ratio < 1.4


async def test_too_long_a_password_takes_an_import_as_long(passwords: Passwords) -> None:
    stored = bcrypt.hashpw(RIGHT.encode(), bcrypt.gensalt(9)).decode()

    def measure(typed: str) -> float:
        began = time.thread_time()
        assert not passwords._verify(typed, stored)
        return time.thread_time() - began

    short = [await passwords._run(lambda: measure("wrong")) for _ in range(5)]
    long = [await passwords._run(lambda: measure("wrong" * 20)) for _ in range(5)]
    assert statistics.median(long) > 0.5 * statistics.median(short)
