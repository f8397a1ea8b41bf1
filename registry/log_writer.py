"""The destination of log lines: standard error, directly or through a thread.

A command writes each line at once. A server starts a thread, which writes the lines in batches, so
that a slow reader of standard error never blocks the event loop.
"""

import atexit
import contextlib
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

logger = logging.getLogger(__name__)

DELAY = 0.1
"""The maximum time that a line waits for others, in seconds."""

FLUSH_TIMEOUT = 1.0
"""The maximum time that the end of a process waits for the reader of its log, in seconds."""

MAX_WAITING = 16_384
"""The number of waiting lines above which access lines are dropped.

Other lines are dropped above twice this number.
"""

ATOMIC = select.PIPE_BUF
"""The size up to which the kernel writes lines of several processes without mixing them, in bytes.

A longer line is written by itself.
"""


class Line(Protocol):
    """A line that the thread formats."""

    def format(self) -> str:
        """Return the line without a newline."""


class LogWriter:
    """Writes log lines to standard error. Every method may be called from any thread."""

    def __init__(self, descriptor: int = 2) -> None:
        """Write to `descriptor` once the thread is started."""
        self._descriptor = descriptor
        self._waiting: deque[str | Line] = deque()
        self._wakes = threading.Event()
        self._is_urgent = threading.Event()
        self._written = threading.Condition()
        self._is_writing = False
        self._thread: threading.Thread | None = None
        self._on_drop: Callable[[], None] = lambda: None
        self._dropped = 0

    @property
    def is_started(self) -> bool:
        """Whether lines are written by the thread."""
        return self._thread is not None

    def start(self, on_drop: Callable[[], None]) -> None:
        """Write all further lines in a thread of this process, which must not fork after this.

        `on_drop` is called for each line that is dropped because the reader is slow.
        """
        self._on_drop = on_drop
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def write(self, text: str) -> None:
        """Write a line soon, or at once if the thread is not started. Ignores a closed reader."""
        if self._thread is None:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
            return
        if len(self._waiting) >= 2 * MAX_WAITING:
            self._drop()
        else:
            self._waiting.append(text)
            self._wakes.set()
        self._is_urgent.set()

    def write_access(self, line: Line) -> None:
        """Write a line within `DELAY`, formatted by the thread."""
        waiting = self._waiting
        if self._thread is None:
            self.write(line.format())
        elif len(waiting) >= MAX_WAITING:
            self._drop()
        else:
            waiting.append(line)
            if not self._wakes.is_set():
                self._wakes.set()

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Wait until all lines are written, for at most `timeout` seconds."""
        if self._thread is None:
            return
        self._is_urgent.set()
        self._wakes.set()
        with self._written:
            self._written.wait_for(lambda: not (self._waiting or self._is_writing), timeout)

    def _drop(self) -> None:
        with self._written:
            self._dropped += 1
        self._on_drop()

    def _run(self) -> None:
        while True:
            self._wakes.wait()
            self._is_urgent.wait(DELAY)
            self._wakes.clear()
            self._is_urgent.clear()
            self._is_writing = True
            for chunk in _split(self._take()):
                self._write_all(chunk)
            with self._written:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                logger.warning("%d log lines were dropped: their reader is slow", dropped)
            with self._written:
                self._is_writing = False
                self._written.notify_all()

    def _take(self) -> Iterator[bytes]:
        """Remove and return the lines that wait now."""
        for _ in range(len(self._waiting)):
            line = self._waiting.popleft()
            text = line if isinstance(line, str) else line.format()
            yield f"{text}\n".encode(errors="backslashreplace")

    def _write_all(self, data: bytes) -> None:
        """Write all bytes. Returns early if the reader has closed its end."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return


def _split(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines into pieces of at most `ATOMIC` bytes."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > ATOMIC:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield b"".join(chunk)


WRITER = LogWriter()
"""The writer of this process."""
