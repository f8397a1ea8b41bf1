"""Keys of upload sessions: which keys may hold bytes of a session, and when they are deleted.

A key is recorded in the session's row before bytes appear under it. Each transaction that removes a
key from the row queues the key for deletion, so no bytes are left without an owner.
"""

from msgspec.structs import replace

from registry.auth.policy.principals import OPERATOR
from registry.errors import UploadUnknownError
from registry.metadata.content import blobs, uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.quotas.quotas import require_room
from storage.digest import Digest
from storage.keys import digest_of, new_generation
from storage.staging import StagedUpload, StagingArea
from storage.stores import Stores

_LARGE = 16 << 20
"""Acknowledged bytes from which a session survives a power cut."""


def session_unknown(upload_id: str) -> UploadUnknownError:
    """Return the error for a session that does not exist, or that the caller may not use."""
    return UploadUnknownError(
        "this repository has no such upload session; start a new one", {"upload": upload_id}
    )


class UploadKeys:
    """The keys of upload sessions, and the transactions that change them."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._db = database
        self._stores = stores

    def staging_of(self, row: UploadRow) -> StagingArea:
        """Return the staging area of the session.

        Raises StoreUnavailableError if the session's store is not open.
        """
        return self._stores.get(row.store).staging

    def possible_keys(self, row: UploadRow) -> set[str]:
        """Return the keys that only the session's row refers to."""
        return self.staging_of(row).possible_keys(row.id, row.resume_state or "", row.claim_number)

    def _keys_of_claim(self, row: UploadRow) -> set[str]:
        """Return the keys of staged bytes that only the holder of this claim may have written."""
        bare = replace(row, resume_state=None)
        return self.possible_keys(bare) - self.possible_keys(
            replace(bare, claim_number=row.claim_number - 1)
        )

    def with_fresh_generation(self, row: UploadRow, digest: Digest | None) -> UploadRow:
        """Return the row with a fresh generation if an earlier request tried another digest.

        The key of that attempt is queued for deletion and must never be used again.
        """
        named = digest_of(row.key) if row.key is not None else None
        if named in {None, digest} or self.staging_of(row).supports_locking:
            return row
        return replace(row, key_generation=new_generation())

    async def save_progress(
        self, row: UploadRow, staged: StagedUpload, key: str | None, *, limited: bool
    ) -> UploadRow:
        """Save the offset and the state of the staged bytes, and the key they may be published at.

        Queues deletion of the keys that the session no longer owns. Returns the new row. Raises
        QuotaExceededError if quotas apply (`limited`) and the bytes do not fit, and
        UploadUnknownError if the session has ended, or another request has changed it since it was
        read.
        """
        new = replace(
            row,
            offset=staged.offset,
            prefix_digest=staged.prefix_digest(),
            key=key,
            resume_state=staged.resume_state or None,
        )
        # The new row covers the keys of this claim, so only keys of earlier claims remain.
        dropped = self.possible_keys(
            replace(row, claim_number=row.claim_number - 1)
        ) - self.possible_keys(new)
        if row.key not in {None, key} and not self.staging_of(row).supports_locking:
            dropped.add(str(row.key))

        def work(tx: Transaction) -> bool:
            if not uploads.advance(tx, new, row):
                return False
            for each in dropped:
                pending_deletions.insert(tx, row.store, each, "superseded staged bytes")
            if limited and new.offset > row.offset:
                require_room(tx, row.repository)
            return True

        durable = self.survives_power_cut(new)
        if not await self._db.write(work, actor=row.principal, durable=durable):
            raise session_unknown(row.id)
        return new

    def survives_power_cut(self, row: UploadRow) -> bool:
        """Return whether the session's acknowledged bytes must survive a power cut.

        On a disk, a client sends a few bytes again sooner than it waits for two more syncs. The
        bytes in a bucket and the claims on them survive, so the row that names them must as well.
        The same holds for a database server that fails while this machine does not.
        """
        is_local = self._db.embedded and self.staging_of(row).supports_locking
        return row.offset >= _LARGE or not is_local

    async def delete_session(self, row: UploadRow) -> bool:
        """Delete the session, and queue deletion of its keys, which may have bytes.

        Returns False if the session no longer exists or another claim has superseded this one.
        """

        def work(tx: Transaction) -> bool:
            # Read the current row: the store has written to it since.
            now = uploads.find(tx, row.id, lock=True)
            if now is None or not uploads.delete(tx, row.id, row.claim_number):
                return False
            for key in self.possible_keys(now) | ({now.key} if now.key is not None else set()):
                pending_deletions.insert(tx, now.store, key, "upload ended")
            return True

        return await self._db.write(work, actor=OPERATOR.name, may_use_reserve=True)

    async def queue_stale_keys(self, row: UploadRow, published: str | None) -> None:
        """Queue deletion of keys written by a claim that was superseded or whose session has ended.

        A later claim may have queued the same keys, and they may have been deleted before the bytes
        arrived. `published` is the key under which the claim may have published bytes.
        """
        written = self._keys_of_claim(row)
        if published is not None and digest_of(published) is not None:
            written.add(published)

        def work(tx: Transaction) -> None:
            now = uploads.find(tx, row.id, lock=True)
            owned: set[str | None] = {None} if now is None else {*self.possible_keys(now), now.key}
            for key in written - owned:
                digest = digest_of(key)
                blob = blobs.find_anywhere(tx, digest, keep=True) if digest is not None else None
                if blob is None or blob.key != key:
                    pending_deletions.insert(tx, row.store, key, "written by a superseded claim")

        await self._db.write(work, actor=OPERATOR.name)
