"""Replacement of a blob's bytes by the registry itself: store moves, restores and healing."""

import contextlib
from collections.abc import AsyncIterable
from dataclasses import replace

from registry.auth.policy.principals import OPERATOR
from registry.errors import RegistryError, UploadBusyError
from registry.metadata.content import blobs, uploads
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.oci.names import RepositoryName
from registry.services.content.publication import Publication
from registry.services.content.upload_chunks import Chunk
from registry.services.content.upload_keys import UploadKeys
from registry.services.content.upload_sessions import UploadSessions
from storage.errors import StoreError

_INTERNAL_REPOSITORY = RepositoryName("(moving)")
"""Repository of the sessions of this writer. Not a valid name, so clients cannot use it."""


class BlobWriter:
    """Writes new bytes for existing blobs.

    An upload session owns the bytes until the blob's row points at them. After a crash, the session
    expires like any other.
    """

    def __init__(
        self,
        database: Database,
        sessions: UploadSessions,
        publication: Publication,
        keys: UploadKeys,
    ) -> None:
        self._db = database
        self._sessions = sessions
        self._publication = publication
        self._keys = keys

    async def replace(
        self, blob: BlobRow, body: AsyncIterable[bytes], retain_old_for: float | None
    ) -> bool:
        """Copy a blob into the store of new blobs and point its row at the copy.

        Returns False if the row has changed in the meantime. The old bytes stay for
        `retain_old_for` seconds; None means that there are none. Raises DigestMismatchError if
        `body` is not the blob, the errors of reading `body`, and StoreError.
        """
        session = await self._sessions.begin(_INTERNAL_REPOSITORY, OPERATOR, blob.digest.algorithm)
        try:
            async with self._sessions.open(_INTERNAL_REPOSITORY, OPERATOR, session.id) as opened:
                await self._sessions.receive_last(opened, Chunk(body), limited=False)
                row, key = await self._publication.publish(
                    opened.row, opened.staged, blob.digest, limited=False
                )
                return await self._repoint_blob(row, blob, key, retain_old_for)
        except BaseException:
            # If this fails, the expiry job ends the session.
            with contextlib.suppress(RegistryError, StoreError):
                await self._sessions.cancel(_INTERNAL_REPOSITORY, OPERATOR, session.id)
            raise

    async def _repoint_blob(
        self, row: UploadRow, blob: BlobRow, key: str, retain_old_for: float | None
    ) -> bool:
        """Point the blob's row at the published bytes, and delete the session."""
        rest = self._keys.possible_keys(row) - {key}

        def work(tx: Transaction) -> bool:
            session = uploads.find(tx, row.id, lock=True)
            if session is None or not uploads.delete(tx, row.id, row.claim_number):
                raise UploadBusyError("another process has taken over this upload session")
            for other in rest:
                pending_deletions.insert(tx, row.store, other, "staged bytes of a finished upload")
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key != blob.key:
                pending_deletions.insert(tx, row.store, key, "blob changed during its move")
                return False
            blobs.put(tx, replace(blob, store=row.store, key=key, state=BlobState.LIVE))
            if retain_old_for is not None:
                # Readers that have read the old row still read from the old key.
                until = tx.now + int(retain_old_for * 1_000_000)
                pending_deletions.insert(tx, blob.store, blob.key, "moved", not_before=until)
            return True

        return await self._db.write(work, actor=OPERATOR.name)
