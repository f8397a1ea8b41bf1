"""Thousands of connections that are idle, or that send a request byte by byte."""

import contextlib
import itertools
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self

REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 4096
PER_ADDRESS = 1000
"""Connections from one address of 127.0.0.0/8, below the limits of servers for one address."""
INTERVAL_S = 1.0


class SlowSockets:
    """A context manager that keeps the connections open.

    Slow ones send one byte of a request a second. If the server closes one, it is opened again.
    """

    def __init__(self, port: int, *, slow: int, idle: int) -> None:
        self._port = port
        self._addresses = itertools.count()
        self._is_over = threading.Event()
        self._idle = [self._connect() for _ in range(idle)]
        self._slow = [self._connect() for _ in range(slow)]
        self._sent = [0] * slow
        self._thread = threading.Thread(target=self._drip)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        for each in [*self._idle, *self._slow]:
            each.close()

    def _connect(self) -> socket.socket:
        number = next(self._addresses) // PER_ADDRESS
        source = f"127.0.{1 + number // 250 % 250}.{1 + number % 250}"
        each = socket.create_connection(
            ("127.0.0.1", self._port), timeout=10, source_address=(source, 0)
        )
        each.setblocking(False)
        return each

    def _drip(self) -> None:
        while not self._is_over.is_set():
            begun = time.monotonic()
            for number, each in enumerate(self._slow):
                at = self._sent[number] % len(REQUEST)
                try:
                    each.send(REQUEST[at : at + 1])
                    self._sent[number] += 1
                except OSError:
                    each.close()
                    self._slow[number] = self._connect()
                    self._sent[number] = 0
            self._is_over.wait(max(0.0, INTERVAL_S - (time.monotonic() - begun)))

    def count_open(self) -> int:
        """Return how many connections the server has not closed."""
        closed = 0
        with selectors.EpollSelector() as selector:
            for each in [*self._idle, *self._slow]:
                with contextlib.suppress(ValueError):  # replaced meanwhile
                    selector.register(each, selectors.EVENT_READ)
            # A connection without a response is readable only if the server has closed it.
            closed = len(selector.select(0))
        return len(self._idle) + len(self._slow) - closed
