"""What was proved a moment ago, or is right now, so that no request proves it again."""

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
    # Keyed: a dump of the memory shows no password, and nobody can aim at a slot.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=_KEY).digest()


class Recent(Generic[T]):
    """At most `most` values, each for `seconds`, under a keyed hash of what they prove.

    What long texts prove may take much memory, so `room` bounds the length of all texts together.
    """

    def __init__(self, most: int, seconds: float, room: int = 4 << 20) -> None:
        self._most = most
        self._seconds = seconds
        self._room = room
        self._values: OrderedDict[bytes, tuple[float, T, int]] = OrderedDict()

    def find(self, text: str) -> T | None:
        """What `text` proved, unless that is too long ago."""
        found = self._values.get(_hash(text))
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def put(self, text: str, value: T) -> None:
        key = _hash(text)
        self.drop(text)
        self._values[key] = (time.monotonic() + self._seconds, value, len(text))
        self._room -= len(text)
        while len(self._values) > self._most or self._room < 0:
            _, (_, _, length) = self._values.popitem(last=False)
            self._room += length

    def drop(self, text: str) -> None:
        """Forget what was put, for something that came to nothing."""
        if self._values.pop(_hash(text), None) is not None:
            self._room += len(text)


class UnderWay:
    """What is being proved at this moment, so that others who bring the same can wait for it."""

    def __init__(self) -> None:
        self._ends: dict[bytes, asyncio.Event] = {}

    async def wait(self, text: str) -> None:
        """Wait until whoever proves `text` has done so or failed, if anybody does."""
        end = self._ends.get(_hash(text))
        if end is not None:
            await end.wait()

    @contextlib.contextmanager
    def proving(self, text: str) -> Iterator[None]:
        """While `text` is being proved. Only the first is waited for: all who waited for one that
        failed go on side by side, bounded as anybody is.
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
