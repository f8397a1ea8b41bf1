"""Passwords: argon2id, on threads of their own with a bounded queue.

Source: RFC 9106; parameters of the OWASP password storage cheat sheet (19 MiB, 2 passes).
"""

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error

from registry.errors import PasswordInvalidError, TooManyRequestsError

T = TypeVar("T")

THREADS = 2
WAITING = 64
"""Passwords that may wait for a thread: about two seconds' worth. More are turned away."""

SHORTEST = 8
LONGEST = 1024
_BCRYPT = ("$2a$", "$2b$", "$2y$")
_BCRYPT_BYTES = 72
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))  # what no text in UTF-8 holds
_NICE = 10
_RETRY_AFTER = 2
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def require_usable(password: str) -> None:
    """Raise PasswordInvalidError for a password that nobody should have or could type."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordInvalidError(f"a password has {SHORTEST} to {LONGEST} characters")
    if any(ord(character) < ord(" ") or character in _SURROGATES for character in password):
        raise PasswordInvalidError("a password holds no control characters")


def _yield_to_others() -> None:
    # On Linux a nice value is a thread's own: pulls go first when many sign in.
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)


@functools.cache
def _hash_of_nobody() -> str:
    """What an unknown user's password is compared with, so that it takes as long."""
    return _HASHER.hash(os.urandom(16).hex())


class Passwords:
    """Makes and checks hashes of passwords."""

    def __init__(self) -> None:
        self._nobody = _hash_of_nobody()
        self._threads = ThreadPoolExecutor(THREADS, "password", _yield_to_others)
        self._busy = 0

    async def hash(self, password: str) -> str:
        """The hash to store; TooManyRequestsError."""
        return await self._run(lambda: _HASHER.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `stored` is the hash of the password; no hash takes as long and is never it."""
        return await self._run(lambda: self._verify(password, stored))

    def is_outdated(self, stored: str) -> bool:
        """Whether the password should be hashed anew: an import, or other parameters."""
        return stored.startswith(_BCRYPT) or _HASHER.check_needs_rehash(stored)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= THREADS + WAITING:
            raise TooManyRequestsError("too many are signing in at once", _RETRY_AFTER)
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._busy -= 1

    def _verify(self, password: str, stored: str | None) -> bool:
        try:
            if stored is not None and stored.startswith(_BCRYPT):
                typed = password.encode()
                right = bcrypt.checkpw(typed[:_BCRYPT_BYTES], stored.encode())
                # A longer password would equal every other that begins so.
                if right and len(typed) <= _BCRYPT_BYTES:
                    return True
                # What htpasswd makes is checked at once, by which a guesser would know its user.
                stored = None
            _HASHER.verify(stored or self._nobody, password)
        except (Argon2Error, ValueError):  # ValueError: a hash or a text that cannot be read
            return False
        return stored is not None
