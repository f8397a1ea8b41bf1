"""Writes to an SQLite database."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from registry.metadata.content import uploads
from registry.metadata.engine.sqlite import SqliteWriter
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import upload


def put(upload_id: str, size: int = 1) -> Callable[[Transaction], str]:
    """Return work that writes a row of about `size` bytes."""

    def work(tx: Transaction) -> str:
        uploads.insert(tx, upload(upload_id, key="x" * size))
        return upload_id

    return work


def list_ids(path: Path) -> list[str]:
    """Return the ids that another process reads."""
    connection = sqlite3.connect(path)
    found = [upload_id for (upload_id,) in connection.execute("SELECT id FROM uploads ORDER BY 1")]
    connection.close()
    return found


class Held:
    """Work that blocks the writer's thread, so that later submissions form one group."""

    def __init__(self, writer: SqliteWriter) -> None:
        self._go_on = threading.Event()
        self._begun = threading.Event()
        self.future = writer.submit(self._work, "holder")
        assert self._begun.wait(10)

    def _work(self, _tx: Transaction) -> None:
        self._begun.set()
        assert self._go_on.wait(10)

    def release(self) -> None:
        self._go_on.set()
        self.future.result(10)


def flood(writer: SqliteWriter, count: int, size: int = 1) -> "Iterator[Future[Any]]":
    """Write `count` rows of about `size` bytes, 64 at a time. Yield each future when done."""
    pending: list[Future[Any]] = []
    for number in range(count):
        pending.append(writer.submit(put(f"{time.monotonic_ns()}-{number}", size), "ann"))
        if len(pending) == 64:
            wait(pending)
            yield from pending
            pending.clear()
    wait(pending)
    yield from pending
