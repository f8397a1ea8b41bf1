"""A process that writes to a SQLite file for a while, and reports how long each write waited.

Usage: `python -m tests.metadata.engine.writer_process queue|busy FILE NUMBER SECONDS`. A line on
stdin starts it. Times are of CLOCK_MONOTONIC, which all processes share.
"""

import asyncio
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import clock
from registry.metadata.content import uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine import sqlite
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName

WRITERS = 16
WORST = 100
"""Number of the longest waits in the report."""

Span = tuple[float, float]


class Record:
    """The events of a run: one span for each write and each use of the disk, and the failures."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.writes: list[Span] = []
        self.disk: list[Span] = []
        self.failures: list[str] = []

    def work(self) -> Callable[[Transaction], None]:
        """Return the registry's most frequent write: the start of an upload session."""
        row = UploadRow(
            id=str(uuid.uuid4()),
            repository=RepositoryName(f"process/{self.number}"),
            repository_generation=None,
            principal="ann",
            algorithm="sha256",
            offset=0,
            prefix_digest=None,
            store="local",
            key_generation="0",
            key=None,
        )
        return lambda tx: uploads.insert(tx, row)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls recorded as disk time."""

        def call(*args: Any) -> Any:
            started = time.monotonic()
            try:
                return function(*args)
            finally:
                self.disk.append((started, time.monotonic()))

        return call

    def dump(self) -> str:
        worst = sorted(self.writes, key=lambda span: span[0] - span[1])[:WORST]
        return json.dumps(
            {
                "count": len(self.writes),
                "worst": worst,
                "disk": self.disk,
                "failures": self.failures,
            }
        )


async def write_by_queue(path: Path, record: Record, start: float, end: float) -> None:
    """Write as the registry does."""
    database = Database(f"sqlite:///{path}")
    queue = database._writer
    assert isinstance(queue, sqlite.SqliteWriter)
    queue._engine.dialect.do_commit = record.timed(queue._engine.dialect.do_commit)  # type: ignore[method-assign]
    queue._checkpoint = record.timed(queue._checkpoint)  # type: ignore[method-assign]

    async def write() -> None:
        await asyncio.sleep(start - time.monotonic())
        while (began := time.monotonic()) < end:
            try:
                await database.write(record.work(), actor="ann")
            except Exception as error:  # noqa: BLE001 - it is what is counted
                record.failures.append(repr(error))
            record.writes.append((began, time.monotonic()))

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    await database.close()


def write_by_busy_handler(path: Path, record: Record, start: float, end: float) -> None:
    """Run the same transactions on the same connections without the queue: each waits by itself."""
    engine = sqlite.open_engine(path, writer=True)
    engine.dialect.do_commit = record.timed(engine.dialect.do_commit)  # type: ignore[method-assign]

    def write() -> None:
        time.sleep(start - time.monotonic())
        while (began := time.monotonic()) < end:
            work = record.work()
            try:
                with engine.begin() as connection:
                    transaction = Transaction(connection, "ann", clock.now_us())
                    work(transaction)
                    transaction.write_changes()
            except Exception as error:  # noqa: BLE001 - it is what is counted
                record.failures.append(repr(error))
            record.writes.append((began, time.monotonic()))

    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()


def main() -> None:
    way, file, number, seconds = sys.argv[1:]
    record = Record(int(number))
    print("ready", flush=True)  # noqa: T201
    start = float(sys.stdin.readline())
    if way == "queue":
        asyncio.run(write_by_queue(Path(file), record, start, start + float(seconds)))
    else:
        write_by_busy_handler(Path(file), record, start, start + float(seconds))
    print(record.dump())  # noqa: T201


if __name__ == "__main__":
    main()
