"""Creation of backups while the registry serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.principals import OPERATOR
from registry.errors import (
    BackupError,
    BlobUnknownError,
    DatabaseUnavailableError,
    DigestMismatchError,
)
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine import leases, migrate
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import backup_snapshot
from registry.services.backup.progress import Progress
from registry.services.backup.snapshot import KEYS, METADATA, Snapshot, iter_blobs, new_id
from registry.services.backup.target import BackupRepository
from registry.services.blob_copy import SourceDamagedError, for_each, read_source
from registry.services.content.blobs import Blobs
from registry.services.throttle import Throttle
from storage.digest import Digest
from storage.errors import StoreError

LEASE_S = 60.0
"""Seconds for which pending deletions are blocked after the last heartbeat of a backup."""

HEARTBEAT_S = 10.0
"""Seconds between heartbeats."""


class _Hold(Struct):
    """Whether the lease of the backup was lost, so that bytes of the snapshot may be deleted."""

    lost: bool = False

    def require(self) -> None:
        if self.lost:
            raise BackupError(
                f"the lease of the backup could not be renewed for {LEASE_S:.0f} s, so bytes "
                "may have been deleted: run the command again; blobs copied so far are kept"
            )


class Keys(Struct, frozen=True):
    """Private keys for the backup: their source, and the passphrase that encrypts them."""

    gather: Callable[[], Awaitable[Mapping[str, bytes]]]
    passphrase: str


class Creator:
    """The creation of a snapshot in a backup directory.

    First, pending deletions are blocked. Then the rows are read in one database snapshot, and the
    bytes that they refer to are copied. The snapshot is named last.
    """

    def __init__(
        self,
        database: Database,
        known: Blobs,
        target: BackupRepository,
        progress: Progress,
        version: str,
    ) -> None:
        """Create the service. `version` is the Moorage version recorded in the snapshot."""
        self._db = database
        self._blobs = known
        self._target = target
        self._progress = progress
        self._version = version

    async def run(self, *, keys: Keys | None, parallel: int = 4, rate: int = 0) -> Snapshot:
        """Add a snapshot to the backup directory. `rate` is in bytes per second; 0 is no limit.

        Raises BackupError, DatabaseUnavailableError, SchemaError. No snapshot exists then, and
        another run continues with the blobs that are not copied yet.
        """
        target = self._target
        await target.tidy()
        name, taken_at = new_id()
        async with self._held(name, with_keys=keys is not None) as hold:
            folder = await target.run(lambda: target.begin(name))
            counts = await self._take(folder / METADATA)
            if keys is not None:
                # Only a backup loads the cryptography for it.
                from registry.auth.keys.key_encryption import seal  # noqa: PLC0415

                raw = seal(await keys.gather(), keys.passphrase, name)
                await target.run(lambda: target.write_keys(name, raw))
            await self._copy(folder / METADATA, hold, parallel, Throttle(rate))
        hold.require()
        return await target.run(
            lambda: self._finish(name, taken_at, counts, with_keys=keys is not None)
        )

    async def _take(self, path: Path) -> dict[str, int]:
        source = self._db.url.render_as_string(hide_password=False)
        with self._progress.telling() as tell:
            return await asyncio.to_thread(backup_snapshot.take, source, path, tell)

    async def _copy(self, path: Path, hold: _Hold, parallel: int, pace: Throttle) -> None:
        progress, file = self._progress, backup_snapshot.SnapshotFile(path)
        progress.blobs, progress.bytes = await asyncio.to_thread(file.measure, whole=False)

        async def work(row: BlobRow) -> None:
            hold.require()
            if await self._target.has(row.digest, row.size):
                progress.count(row, copied=False)
            elif await self._copy_one(row, pace):
                progress.count(row, copied=True)
            else:
                progress.missing.append(row.digest)

        await for_each(iter_blobs(file, whole=False), work, parallel)

    async def _copy_one(self, row: BlobRow, pace: Throttle) -> bool:
        """Copy one blob. Return False if the registry does not have its bytes."""
        try:
            reader = await self._blobs.open(row)
            try:
                body = read_source(reader, row.size, self._progress, pace)
                await self._target.put(row.digest, _told(body, row.digest))
            finally:
                await reader.close()
        except BlobUnknownError:
            return False
        except (SourceDamagedError, DigestMismatchError):
            # Do not serve corrupt bytes. The next push of the blob heals it.
            await self._blobs.note_damage(row)
            return False
        except StoreError as error:
            raise _unreadable(row.digest, error) from error
        return True

    def _finish(
        self, name: str, taken_at: str, counts: dict[str, int], *, with_keys: bool
    ) -> Snapshot:
        target, missing = self._target, self._progress.missing
        path = target.unfinished(name) / METADATA
        backup_snapshot.settle(path, missing)
        blobs, size = backup_snapshot.SnapshotFile(path).measure()
        made = Snapshot(
            id=name,
            moorage=self._version,
            schema=migrate.VERSION,
            taken_at=taken_at,
            metadata=target.measure(name, METADATA),
            keys=target.measure(name, KEYS) if with_keys else None,
            repositories=counts["repositories"],
            manifests=counts["manifests"],
            tags=counts["tags"],
            blobs=blobs,
            bytes=size,
            missing=len(missing),
        )
        target.finish(made)
        return made

    @contextlib.asynccontextmanager
    async def _held(self, name: str, *, with_keys: bool) -> AsyncIterator[_Hold]:
        """Block pending deletions with a lease, which expires if this process dies."""
        lease, hold = leases.BACKUP + name, _Hold()

        def begin(tx: Transaction) -> None:
            leases.delete_expired(tx, leases.BACKUP)
            leases.claim(tx, lease, name, LEASE_S)
            record(tx, Actor(OPERATOR.name), Event.BACKUP_CREATE, name, keys=with_keys)

        async def extend() -> None:
            if not await self._db.write(
                lambda tx: leases.extend(tx, lease, name, LEASE_S), actor=OPERATOR.name
            ):
                hold.lost = True

        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                with contextlib.suppress(DatabaseUnavailableError):
                    await extend()

        await self._db.write(begin, actor=OPERATOR.name)
        beating = asyncio.create_task(beat())
        try:
            yield hold
            await extend()  # only a successful extension proves that the lease was held throughout
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            with contextlib.suppress(DatabaseUnavailableError):
                await self._db.write(
                    lambda tx: leases.release(tx, lease, name), actor=OPERATOR.name
                )


async def _told(pieces: AsyncIterator[bytes], digest: Digest) -> AsyncIterator[bytes]:
    """Convert errors of the registry's store, so that they differ from errors of the backup."""
    try:
        async for piece in pieces:
            yield piece
    except StoreError as error:
        raise _unreadable(digest, error) from error


def _unreadable(digest: Digest, error: StoreError) -> BackupError:
    return BackupError(
        f"blob {digest} cannot be read from the registry's store ({error}): run the command "
        "again; blobs copied so far are kept"
    )
