"""Password hashing with argon2id, on dedicated threads with a bounded queue.

Source: RFC 9106; parameters of the OWASP password storage cheat sheet (19 MiB, 2 passes).
"""

import asyncio
import base64
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error
from argon2.low_level import ARGON2_VERSION

from registry.auth.settings import LONGEST_PASSWORD, SHORTEST_PASSWORD
from registry.errors import PasswordInvalidError, TooManyRequestsError

T = TypeVar("T")

THREADS = 2
WAITING = 64
"""Passwords that may wait for a thread, about two seconds of work. More are refused."""

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_BCRYPT_BYTES = 72
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))  # UTF-8 cannot encode them
_NICE = 10
_RETRY_AFTER = 2


def require_usable(password: str) -> None:
    """Raise PasswordInvalidError if the password has a bad length or characters nobody can type."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise PasswordInvalidError(
            f"a password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
        )
    if any(ord(character) < ord(" ") or character in _SURROGATES for character in password):
        raise PasswordInvalidError("a password must not contain control characters")


def _yield_to_others() -> None:
    # On Linux, a nice value applies to one thread. Pulls get priority while many users sign in.
    # Only root may lower it, if the process was started with a higher one.
    started_with = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, started_with))


class Passwords:
    """Hashes and verifies passwords."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._dummy_hash = self._find_nobody()
        self._threads = ThreadPoolExecutor(THREADS, "password", _yield_to_others)
        self._busy = 0

    def _find_nobody(self) -> str:
        """Return the hash to verify an unknown user's password against, so that it takes as long.

        Its bytes are random, so no password matches it. Its parameters are those of all other
        hashes.
        """
        of = self._hasher
        parameters = f"m={of.memory_cost},t={of.time_cost},p={of.parallelism}"
        salt, hashed = (
            base64.b64encode(os.urandom(size)).decode().rstrip("=")
            for size in (of.salt_len, of.hash_len)
        )
        return f"$argon2id$v={ARGON2_VERSION}${parameters}${salt}${hashed}"

    async def hash(self, password: str) -> str:
        """Return the hash to store; raise TooManyRequestsError if too many passwords wait."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether `stored` is the hash of the password.

        If `stored` is None, the call takes as long and returns False. Raises TooManyRequestsError.
        """
        return await self._run(lambda: self._verify(password, stored))

    def is_outdated(self, stored: str) -> bool:
        """Return whether to hash the password again: its hash is imported or has old parameters."""
        return stored.startswith(_BCRYPT) or self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= THREADS + WAITING:
            raise TooManyRequestsError("too many sign-ins at once; try again later", _RETRY_AFTER)
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
                # bcrypt ignores bytes after the 72nd: a longer password would match all with the
                # same start.
                if right and len(typed) <= _BCRYPT_BYTES:
                    return True
                # The bcrypt hashes that htpasswd makes verify very fast, which would reveal that
                # the user exists.
                stored = None
            self._hasher.verify(stored or self._dummy_hash, password)
        except (Argon2Error, ValueError):  # ValueError: a hash or a text that cannot be read
            return False
        return stored is not None
