"""Publication of uploads: staged bytes are verified, get their final key, and become a blob."""

from collections.abc import Awaitable, Callable
from typing import Any

from registry.errors import DigestMismatchError, UploadBusyError
from registry.metadata.content import blobs, repositories, uploads
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.content.blobs import Blobs
from registry.services.content.upload_keys import UploadKeys, session_unknown
from registry.services.quotas.quotas import require_room
from storage.digest import Digest
from storage.job_threads import Then
from storage.keys import blob_key
from storage.staging import StagedUpload


class Publication:
    """Publishes the bytes of upload sessions. Bytes are written before rows."""

    def __init__(self, database: Database, linked: Blobs, keys: UploadKeys) -> None:
        self._db = database
        self._blobs = linked
        self._keys = keys

    async def is_published(self, row: UploadRow) -> bool:
        """Return whether the session's bytes exist under the key that its row names."""
        return row.key is not None and await self._blobs.is_stored(row.store, row.key, row.offset)

    async def publish(
        self, row: UploadRow, staged: StagedUpload, digest: Digest, *, limited: bool
    ) -> tuple[UploadRow, str]:
        """Verify and publish sealed bytes. Return the new row and the key of the bytes.

        Raises DigestMismatchError, after which the caller ends the session, and otherwise as
        `UploadKeys.save_progress`.
        """
        row = self._keys.with_fresh_generation(row, digest)
        key = staged.final_key(blob_key(digest, row.key_generation))
        if staged.known_digest(digest.algorithm, row.prefix_digest) is None:
            # Reading the bytes may publish them, so the key needs an owner first.
            row = await self._name_key(row, staged, key, limited=limited)
        actual = await staged.digest(digest.algorithm, row.prefix_digest)
        if actual != digest:
            raise DigestMismatchError(
                "the bytes do not have this digest; the upload session has ended, so start again",
                {"expected": str(digest), "actual": str(actual)},
            )
        row = await self._name_key(row, staged, key, limited=limited)
        await staged.publish(blob_key(digest, row.key_generation))
        return row, key

    async def _name_key(
        self, row: UploadRow, staged: StagedUpload, key: str, *, limited: bool
    ) -> UploadRow:
        """Record the key in the row before bytes appear under it."""
        if row.key == key:
            return row
        return await self._keys.save_progress(row, staged, key, limited=limited)

    async def link(
        self,
        row: UploadRow,
        digest: Digest,
        key: str,
        *,
        limited: bool,
        after: Callable[[Then], Awaitable[Any]] | None = None,
    ) -> None:
        """Turn published bytes into a blob of the repository, and delete the session.

        With `after`, a job publishes the bytes first, as in `Database.write_after`. Raises
        QuotaExceededError, after which the caller ends the session, UploadBusyError if another
        claim has superseded this one, and UploadUnknownError if the session has ended.
        """
        blob = BlobRow(digest, row.offset, row.store, key, BlobState.LIVE)
        checked: BlobRow | None = None
        broken: str | None = None

        def work(tx: Transaction) -> BlobRow | None:
            """Change nothing and return the existing copy if its bytes were not checked yet."""
            found = blobs.find_anywhere(tx, blob.digest)
            if found is not None and (checked is None or checked.key != found.key):
                return found
            self._link(tx, row, blob, broken, limited=limited)
            return None

        if after is None:
            found = await self._db.write(work, actor=row.principal)
        else:
            found = await self._db.write_after(after, work, actor=row.principal)
        while found is not None:
            checked = found
            broken = None if await self._blobs.is_whole(found) else found.key
            found = await self._db.write(work, actor=row.principal)

    def _link(
        self, tx: Transaction, row: UploadRow, blob: BlobRow, broken: str | None, *, limited: bool
    ) -> None:
        """Do the work of `link`. `broken` is the key of an existing copy that is not intact."""
        # Lock the repository first. A deletion locks it exclusively before it detaches sessions.
        repository = repositories.ensure(tx, row.repository)
        session = uploads.take(tx, row.id, row.claim_number)
        if session is None:
            linked = blobs.find(tx, row.repository, blob.digest)
            if linked is not None and linked.key != broken:
                return  # another request of the session has linked the blob
            if (session := uploads.find(tx, row.id)) is not None and session.belongs_to(repository):
                raise UploadBusyError("another request has taken over this upload session")
        if session is None or not session.belongs_to(repository):
            raise session_unknown(row.id)
        self._store(tx, blob, broken)
        blobs.link(tx, repository, blob.digest)
        if limited:
            require_room(tx, row.repository, before=row.id)
        for other in self._keys.possible_keys(row) - {blob.key}:
            pending_deletions.insert(tx, row.store, other, "staged bytes of a finished upload")

    def _store(self, tx: Transaction, blob: BlobRow, broken: str | None) -> None:
        """Name these bytes in the blob's row, unless the row names an intact copy."""
        stored = None
        while stored is None:  # deleted since its row prevented the insertion
            if blobs.insert_new(tx, blob):
                return
            stored = blobs.lock(tx, blob.digest)
        if stored.key == broken:
            blobs.put(tx, blob)
            pending_deletions.insert(tx, stored.store, stored.key, "replaced by a push")
        else:
            # An intact copy exists, so this one is not needed.
            pending_deletions.insert(tx, blob.store, blob.key, "duplicate upload")
