"""Copying of blobs between stores, with progress."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from registry.errors import BackupError
from registry.metadata.content.blobs import BlobRow
from registry.metadata.maintenance.backup_snapshot import SnapshotFile
from registry.services.maintenance.store_migration import gather_or_cancel
from registry.services.throttle import Throttle
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import ObjectCorruptError

T = TypeVar("T")

PAGE = 1000


class BrokenError(Exception):
    """The source bytes of a blob cannot be read."""


@dataclass(slots=True)
class Progress:
    """Progress of a run.

    `copied` of the `done` blobs were copied. The others already existed.
    """

    rows: str = ""
    """The table that is being copied, with the number of rows so far."""

    blobs: int = 0
    bytes: int = 0
    done: int = 0
    read: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[Digest] = field(default_factory=list)

    @contextlib.contextmanager
    def telling(self) -> Iterator[Callable[[str, int], None]]:
        """Yield a callback that records row progress from a thread.

        After exit, the callback raises BackupError, which ends the abandoned thread.
        """
        ended = False

        def tell(table: str, rows: int) -> None:
            if ended:
                raise BackupError("the backup command was stopped")
            self.rows = f"{table}: {rows} rows"

        try:
            yield tell
        finally:
            ended = True

    def count(self, row: BlobRow, *, copied: bool) -> None:
        self.done += 1
        if copied:
            self.copied += 1
            self.copied_bytes += row.size
        else:
            self.read += row.size


async def iter_blobs(file: SnapshotFile, *, whole: bool) -> AsyncIterator[BlobRow]:
    """Yield the blobs of a snapshot in digest order."""
    last: Digest | None = None
    while True:
        rows = await asyncio.to_thread(file.list_page, last, PAGE, whole=whole)
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        last = rows[-1].digest


async def for_each(
    rows: AsyncIterator[T], work: Callable[[T], Awaitable[None]], parallel: int
) -> None:
    """Run `work` for all rows, at most `parallel` at a time. The first failure cancels the rest."""
    waiting: asyncio.Queue[T | None] = asyncio.Queue(parallel)

    async def feed() -> None:
        async for row in rows:
            await waiting.put(row)
        for _ in range(parallel):
            await waiting.put(None)

    async def take() -> None:
        while (row := await waiting.get()) is not None:
            await work(row)

    await gather_or_cancel(feed(), *(take() for _ in range(parallel)))


async def read(
    reader: Reader, size: int, progress: Progress, pace: Throttle
) -> AsyncIterator[bytes]:
    """Yield the bytes of a blob. Raises BrokenError if they cannot be read to the end."""
    try:
        async for piece in reader.read(0, size):
            await pace.take(len(piece))
            progress.read += len(piece)
            yield piece
    except ObjectCorruptError as error:
        raise BrokenError from error
