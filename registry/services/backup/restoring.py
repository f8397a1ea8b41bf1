"""Restoring a backup into an empty registry."""

import asyncio
from pathlib import Path

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.principals import OPERATOR
from registry.errors import BackupError, DigestMismatchError
from registry.metadata.content import blobs
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.maintenance import backup_snapshot, database_copy
from registry.services.backup.progress import Progress
from registry.services.backup.snapshot import Snapshot, iter_blobs
from registry.services.backup.target import BackupRepository
from registry.services.blob_copy import SourceDamagedError, for_each, read_source
from registry.services.content.blob_writer import BlobWriter
from registry.services.throttle import Throttle
from storage.keys import blob_key, new_generation


class Restorer:
    """The restore of a snapshot.

    The rows are written in one transaction, which also marks the registry as not serving. Then the
    bytes are copied and verified; an upload session owns them until the row refers to them. The
    registry is opened last.
    """

    def __init__(
        self,
        database: Database,
        blob_writer: BlobWriter,
        store: str,
        target: BackupRepository,
        progress: Progress,
    ) -> None:
        """Create the service. `store` is the name of the store of new blobs in rows."""
        self._db = database
        self._blob_writer = blob_writer
        self._store = store
        self._target = target
        self._progress = progress

    async def find_begun(self) -> str | None:
        """Return the id of the snapshot that an earlier run has started to restore here."""
        state = await migrate.read_state(self._db)
        if state.move is not None and state.move.state is MoveState.RESTORING:
            return state.move.token
        return None

    async def _prepare(self) -> None:
        """Create the schema if there is none. Raises SchemaError if it does not fit."""
        state = await migrate.read_state(self._db)
        if state.version == 0:
            url = self._db.url.render_as_string(hide_password=False)
            await asyncio.to_thread(migrate.upgrade, url)
        elif not state.filling:
            migrate.require_usable(state)

    async def fill(self, snapshot: Snapshot, scratch: Path, *, with_keys: bool) -> None:
        """Write the rows, once.

        `scratch` is the path of a temporary file, created and deleted here. `with_keys` is as in
        `snapshots.restore`. Raises ConflictError if there are rows already, BackupError,
        SchemaError.
        """
        if snapshot.schema > migrate.VERSION:
            raise BackupError(
                f"snapshot {snapshot.id} has schema {snapshot.schema}, but this version "
                f"supports only {migrate.VERSION}: restore it with Moorage "
                f"{snapshot.moorage} or newer"
            )
        await self._prepare()
        target = self._target
        try:
            await target.run(lambda: target.copy_metadata(snapshot, scratch))
            with self._progress.telling() as tell:
                await asyncio.to_thread(
                    backup_snapshot.restore,
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
        """Copy the blobs that do not exist yet, and open the registry. Return whether it is open.

        The registry stays closed while blobs are missing, which `progress` lists, unless
        `allow_missing` is set: a later push heals them. Raises BackupError, StoreError,
        DatabaseUnavailableError. Another run continues.
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
            database_copy.confirm(tx, snapshot.id)
            record(tx, Actor(OPERATOR.name), Event.BACKUP_RESTORE, snapshot.id)

        await self._db.write(end, actor=OPERATOR.name)
        return True

    async def _copy(self, row: BlobRow) -> bool:
        """Copy one blob. Return False if the backup does not have its bytes."""
        reader = await self._target.open(row.digest, row.size)
        if reader is None:
            return False
        try:
            body = read_source(reader, row.size, self._progress, Throttle(0))
            await self._blob_writer.replace(row, body, retain_old_for=None)
        except (SourceDamagedError, DigestMismatchError):
            return False
        finally:
            await reader.close()
        return True
