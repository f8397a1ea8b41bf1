"""Migration of blobs from the old store to the store of new blobs, while servers use both."""

import asyncio
import logging
from collections.abc import AsyncIterator

from msgspec import Struct, field

from registry.errors import (
    BlobUnknownError,
    ConfigError,
    DatabaseUnavailableError,
    DigestMismatchError,
    UploadBusyError,
)
from registry.metadata.content import blobs, uploads
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.blob_copy import SourceDamagedError, for_each, read_source
from registry.services.content.blob_writer import BlobWriter
from registry.services.content.blobs import Blobs
from registry.services.throttle import Throttle
from storage.digest import Digest
from storage.errors import StoreError, StoreFullError
from storage.stores import Store, Stores

logger = logging.getLogger(__name__)

PAGE_SIZE = 200
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Delays in seconds between attempts, after a failure of a store or the database."""


class Remaining(Struct, frozen=True):
    """The content left in the old store. `bytes` counts only the blobs."""

    blobs: int
    bytes: int
    sessions: int
    pending_deletions: int


class Failure(Struct, frozen=True):
    """A blob that could not be moved, and the reason."""

    digest: Digest
    reason: str


class Moved(Struct):
    """Progress of a run."""

    blobs: int = 0
    bytes: int = 0
    read: int = 0
    """Bytes read so far, including blobs that are not moved yet."""

    failures: list[Failure] = field(default_factory=list)


class StoreMigration:
    """The migration of blobs between stores.

    For each blob, the bytes are copied to a key that an upload session owns, and their digest is
    verified. One transaction then points the row at the new key and queues the old key for
    deletion.
    """

    def __init__(
        self, database: Database, stores: Stores, known: Blobs, blob_writer: BlobWriter
    ) -> None:
        self._db = database
        self._stores = stores
        self._blobs = known
        self._blob_writer = blob_writer

    @property
    def _old(self) -> Store:
        if self._stores.old is None:
            raise ConfigError(
                "no old store is configured: set [old_storage] to the store that holds the "
                "blobs now, and [storage] to the store they are moved to"
            )
        return self._stores.old

    async def measure(self) -> Remaining:
        """Return what is left in the old store. Raises ConfigError if there is no old store."""
        name = self._old.name

        def work(tx: Transaction) -> Remaining:
            return Remaining(
                *blobs.measure(tx, name),
                uploads.count_in(tx, name),
                pending_deletions.count_in(tx, name),
            )

        return await self._db.read(work)

    async def run(self, moved: Moved, *, parallel: int, keep: float, rate: int) -> None:
        """Move all blobs of the old store, and update `moved` on the way.

        `keep` is the number of seconds for which moved bytes stay in the old store, for ongoing
        reads. `rate` is in bytes per second; 0 is no limit. Raises ConfigError, StoreError,
        DatabaseUnavailableError. Another run continues with the remaining blobs.
        """
        pace = Throttle(rate)

        async def work(row: BlobRow) -> None:
            await self._move_patiently(row, moved, pace, keep)

        await for_each(self._iter_rows(self._old), work, parallel)

    async def _iter_rows(self, old: Store) -> AsyncIterator[BlobRow]:
        last: Digest | None = None
        while True:
            rows = await self._db.read(
                lambda tx, last=last: blobs.list_in(tx, old.name, last, PAGE_SIZE)  # type: ignore[misc]
            )
            for row in rows:
                yield row
            if len(rows) < PAGE_SIZE:
                return
            last = rows[-1].digest

    async def _move_patiently(
        self, row: BlobRow, moved: Moved, pace: Throttle, keep: float
    ) -> None:
        for pause in (*PAUSES, None):
            try:
                await self._move(row, moved, pace, keep)
            except (StoreError, UploadBusyError, DatabaseUnavailableError) as error:
                if pause is None or isinstance(error, StoreFullError):
                    raise
                logger.warning("blob %s: %s; trying again in %.0f s", row.digest, error, pause)
                await asyncio.sleep(pause)
            else:
                return

    async def _move(self, row: BlobRow, moved: Moved, pace: Throttle, keep: float) -> None:
        try:
            reader = await self._blobs.open(row)
        except BlobUnknownError:
            await self._record_failure(row, moved, "its bytes are missing or have the wrong size")
            return
        try:
            body = read_source(reader, row.size, moved, pace)
            if await self._blob_writer.replace(row, body, keep):
                moved.blobs += 1
                moved.bytes += row.size
        except SourceDamagedError:
            await self._record_failure(
                row, moved, "its bytes cannot be read completely", damaged=True
            )
        except DigestMismatchError:
            await self._record_failure(
                row, moved, "its bytes do not match its digest", damaged=True
            )
        finally:
            await reader.close()

    async def _record_failure(
        self, row: BlobRow, moved: Moved, reason: str, *, damaged: bool = False
    ) -> None:
        """Record a blob that could not be moved, unless its row has changed in the meantime."""
        now = await self._db.read(lambda tx: blobs.find_anywhere(tx, row.digest))
        if now is None or now.key != row.key:
            return
        if damaged:
            # Do not serve corrupt bytes. The next push of the blob heals it.
            await self._blobs.note_damage(row)
        moved.failures.append(Failure(row.digest, reason))
