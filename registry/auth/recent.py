"""What was proved a moment ago, so that it need not be proved again with each request."""

import hashlib
import os
import time
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

_KEY = os.urandom(32)


class Recent(Generic[T]):
    """At most `most` values, each for `seconds`, under a keyed hash of what they prove."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._values: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    @staticmethod
    def _hash(text: str) -> bytes:
        # Keyed: a dump of the memory shows no password, and nobody can aim at a slot.
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=_KEY).digest()

    def find(self, text: str) -> T | None:
        """What `text` proved, unless that is too long ago."""
        found = self._values.get(self._hash(text))
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def put(self, text: str, value: T) -> None:
        key = self._hash(text)
        self._values[key] = (time.monotonic() + self._seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
