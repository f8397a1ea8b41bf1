"""Helpers of the tests of this folder."""

import asyncio
import threading
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 10.0
"""Seconds after which a blocked thread continues, so that a failed test ends."""


class Gate:
    """A barrier that holds back the first thread that reaches it."""

    def __init__(self) -> None:
        self._used = threading.Lock()
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        """Block the calling thread if it is the first."""
        if self._used.acquire(blocking=False):
            self._reached.set()
            assert self._opened.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)

    def open(self) -> None:
        self._opened.set()


async def a_moment() -> None:
    """Give other tasks and threads some time to run."""
    await asyncio.sleep(0.05)
