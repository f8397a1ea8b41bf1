"""The lock of an SQLite database that lets one process at a time write."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class WriterLock:
    """A fair lock that lets one process at a time write.

    A plain flock is unfair: the process that releases it takes it again before a waiter has woken
    up. Here the process that waits for `writer` holds `turn`, so that the releasing process queues
    behind it.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._turn = os.open(f"{path}-turn", flags, 0o600)
        self._writer = os.open(f"{path}-writer", flags, 0o600)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._writer, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._writer)
