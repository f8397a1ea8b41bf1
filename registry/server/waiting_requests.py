"""Requests whose responses are remembered, while one query that they share is under way.

A response from memory must be as current as one of the application. Without a mark of the last
commit in memory, only a query that begins after the request has arrived shows this.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from registry import metrics

logger = logging.getLogger(__name__)

PATIENCE = 0.25
"""The time after which the application answers a waiting request, in seconds.

The application waits for the same query as long as a request waits for the database, and reports
its error.
"""


class Channel(Protocol):
    """The connection of a waiting request."""

    @property
    def date(self) -> list[tuple[bytes, bytes]]: ...

    waiting: "WaitingRequest | None"
    """The request that waits now."""

    def end_wait(self, answer: bytes | None) -> None: ...
    def abort(self) -> None: ...


class WaitingRequest(Struct, eq=False):
    """A request, and the key of its response in the memory.

    `client` is the address of the client; empty if header fields name it. `began` is the time of
    its arrival, of `time.monotonic`.
    """

    channel: Channel
    data: bytes
    key: bytes
    client: str
    began: float


_Batch = deque[WaitingRequest]


class WaitingRequests:
    """The waiting requests of a process.

    `start_read` returns the result of a query that has not begun yet. `repeat` returns the response
    to a request, or None if the application has to answer it.
    """

    def __init__(
        self,
        start_read: Callable[[], asyncio.Future[object]],
        repeat: Callable[[WaitingRequest], bytes | None],
    ) -> None:
        self._start_read = start_read
        self._repeat = repeat
        self._read: asyncio.Future[object] | None = None
        self._batch: _Batch = deque()
        self._in_flight = 0

    def add(self, request: WaitingRequest) -> None:
        """Let a request wait for a query that begins after this call."""
        read = self._start_read()
        if read is not self._read:
            self._read, self._batch = read, deque()
            self._watch(read, self._batch)
        self._batch.append(request)

    def _watch(self, read: asyncio.Future[object], batch: _Batch) -> None:
        def on_read(_: asyncio.Future[object]) -> None:
            timer.cancel()
            self._end(batch, succeeded=not read.cancelled() and read.exception() is None)

        def on_timeout() -> None:
            read.remove_done_callback(on_read)
            if read is self._read:
                self._read = None  # later requests that wait for it need a timer of their own
            self._end(batch, succeeded=False)

        timer = read.get_loop().call_later(PATIENCE, on_timeout)
        read.add_done_callback(on_read)

    def _end(self, batch: _Batch, *, succeeded: bool) -> None:
        """End the wait of all requests of a batch."""
        if self._in_flight:
            metrics.IN_FLIGHT.dec(self._in_flight)
            self._in_flight = 0
        while batch:
            request = batch.popleft()
            if request.channel.waiting is not request:
                continue  # the connection has ended, or the application answers
            try:
                request.channel.end_wait(self._repeat(request) if succeeded else None)
            except Exception:
                logger.exception("a request that waited for the database failed")
                request.channel.abort()

    def count(self) -> None:
        """Add the requests of the latest batch to those in flight, until one of them ends."""
        metrics.IN_FLIGHT.inc(len(self._batch) - self._in_flight)
        self._in_flight = len(self._batch)
