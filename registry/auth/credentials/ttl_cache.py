"""Caches of recent authentications, so that requests need not repeat them."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_KEY = os.urandom(32)


def _hash(text: str) -> bytes:
    # Keyed, so that a memory dump shows no passwords and nobody can construct collisions.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=_KEY).digest()


class TtlCache(Generic[T]):
    """A cache of at most `most` values, for `seconds` each, by a keyed hash of a secret text.

    Values for long texts may take much memory, so `room` limits the total length of all texts, in
    characters.
    """

    def __init__(self, most: int, seconds: float, room: int = 4 << 20) -> None:
        self._most = most
        self._seconds = seconds
        self._room = room
        self._values: OrderedDict[bytes, tuple[float, T, int]] = OrderedDict()

    def find(self, text: str) -> T | None:
        """Return the value for `text`, unless it has expired."""
        found = self._values.get(_hash(text))
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def find_deadline(self, text: str) -> float | None:
        """Return the time at which the value for `text` expires, of `time.monotonic`."""
        found = self._values.get(_hash(text))
        return found[0] if found is not None else None

    def put(self, text: str, value: T) -> None:
        key = _hash(text)
        self.drop(text)
        self._values[key] = (time.monotonic() + self._seconds, value, len(text))
        self._room -= len(text)
        while len(self._values) > self._most or self._room < 0:
            _, (_, _, length) = self._values.popitem(last=False)
            self._room += length

    def drop(self, text: str) -> None:
        """Remove a value that is no longer valid."""
        if self._values.pop(_hash(text), None) is not None:
            self._room += len(text)


class SingleFlight:
    """Authentications in progress, so that others with the same credentials can wait for them."""

    def __init__(self) -> None:
        self._ends: dict[bytes, asyncio.Event] = {}

    async def wait(self, text: str) -> None:
        """Wait for an authentication of `text` in progress, if any, to succeed or fail."""
        end = self._ends.get(_hash(text))
        if end is not None:
            await end.wait()

    @contextlib.contextmanager
    def proving(self, text: str) -> Iterator[None]:
        """Mark `text` as being authenticated.

        Others wait only for the first one. If it fails, all that waited proceed concurrently, with
        the usual limits.
        """
        key, end = _hash(text), asyncio.Event()
        if self._ends.setdefault(key, end) is not end:
            yield
            return
        try:
            yield
        finally:
            del self._ends[key]
            end.set()
