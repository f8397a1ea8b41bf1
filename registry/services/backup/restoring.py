"""Making a registry of a backup, in a place that is empty."""

import asyncio
from pathlib import Path

from registry.auth.books import Actor, Event, note
from registry.auth.principals import OPERATOR
from registry.errors import BackupError, DigestMismatchError
from registry.metadata import blobs, copying, migrate, snapshots
from registry.metadata.blobs import BlobRow, BlobState
from registry.metadata.database import Database
from registry.metadata.moves import MoveState
from registry.metadata.transaction import Transaction
from registry.services.backup.reading import BrokenError, Progress, for_each, iter_blobs, read
from registry.services.backup.snapshot import Snapshot
from registry.services.backup.target import Target
from registry.services.pace import Pace
from registry.services.uploads import Uploads
from storage.keys import blob_key, new_generation


class Restoring:
    """The order: rows, in one transaction that also says that nobody serves from them yet; bytes,
    each verified, owned by a session until its row names it; and then the registry is open.
    """

    def __init__(
        self, database: Database, pushed: Uploads, store: str, target: Target, progress: Progress
    ) -> None:
        """`store`: what rows call the store of new blobs. `progress` tells how far it is."""
        self._db = database
        self._uploads = pushed
        self._store = store
        self._target = target
        self._progress = progress

    async def find_begun(self) -> str | None:
        """The snapshot that an earlier run has begun to restore here."""
        state = await migrate.read_state(self._db)
        if state.move is not None and state.move.state is MoveState.RESTORING:
            return state.move.token
        return None

    async def _prepare(self) -> None:
        """Make the schema, if there is none; SchemaError for one that does not fit."""
        state = await migrate.read_state(self._db)
        if state.version == 0:
            url = self._db.url.render_as_string(hide_password=False)
            await asyncio.to_thread(migrate.upgrade, url)
        elif not state.filling:
            migrate.require_usable(state)

    async def fill(self, snapshot: Snapshot, scratch: Path, *, with_keys: bool) -> None:
        """Write the rows, once. `scratch`: a file to work in, made here and removed. `with_keys` as
        in `snapshots.restore`. ConflictError if there are any rows; BackupError, SchemaError.
        """
        if snapshot.schema > migrate.VERSION:
            raise BackupError(
                f"the snapshot {snapshot.id} has schema {snapshot.schema} and this version knows "
                f"{migrate.VERSION}: restore it with Moorage {snapshot.moorage} or newer"
            )
        await self._prepare()
        target = self._target
        try:
            await target.run(lambda: target.copy_metadata(snapshot, scratch))
            with self._progress.telling() as tell:
                await asyncio.to_thread(
                    snapshots.restore,
                    scratch,
                    self._db.url.render_as_string(hide_password=False),
                    token=snapshot.id,
                    store=self._store,
                    new_key=lambda digest: blob_key(digest, new_generation()),
                    with_keys=with_keys,
                    tell=tell,
                )
        finally:
            await target.run(lambda: scratch.unlink(missing_ok=True))

    async def run(
        self, snapshot: Snapshot, *, allow_missing: bool = False, parallel: int = 4
    ) -> bool:
        """Copy the blobs that are not there yet, and open the registry; whether it is open.

        It is not while blobs are missing, which `progress` lists, unless that is allowed: then a
        push of them heals them. BackupError, StoreError, DatabaseUnavailableError; run again it
        goes on.
        """
        target, progress = self._target, self._progress
        await target.run(lambda: target.require_metadata(snapshot))
        file = target.open_metadata(snapshot.id)
        progress.blobs, progress.bytes = snapshot.blobs, snapshot.bytes

        async def work(wanted: BlobRow) -> None:
            row = await self._db.read(lambda tx: blobs.find_anywhere(tx, wanted.digest))
            if row is None or row.state is not BlobState.MISSING:
                progress.count(wanted, copied=False)
            elif await self._copy(row):
                progress.count(wanted, copied=True)
            else:
                progress.missing.append(wanted.digest)

        await for_each(iter_blobs(file, whole=True), work, parallel)
        if progress.missing and not allow_missing:
            return False

        def end(tx: Transaction) -> None:
            copying.confirm(tx, snapshot.id)
            note(tx, Actor(OPERATOR.name), Event.BACKUP_RESTORE, snapshot.id)

        await self._db.write(end, actor=OPERATOR.name)
        return True

    async def _copy(self, row: BlobRow) -> bool:
        """Whether the backup has the blob's bytes."""
        reader = await self._target.open(row.digest, row.size)
        if reader is None:
            return False
        try:
            body = read(reader, row.size, self._progress, Pace(0))
            await self._uploads.move(row, body, keep=None)
        except (BrokenError, DigestMismatchError):
            return False
        finally:
            await reader.close()
        return True
