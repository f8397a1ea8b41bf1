"""Upload sessions. Bytes are written before rows; see designs D2 and D3 for the reasons."""

import contextlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import replace

from registry.auth.policy.principals import OPERATOR, Principal
from registry.errors import (
    BodyStalledError,
    ClientDisconnectedError,
    DigestMismatchError,
    QuotaExceededError,
    RegistryError,
    SizeInvalidError,
    TooManyRequestsError,
    UploadBusyError,
    UploadOutOfOrderError,
    UploadUnknownError,
)
from registry.metadata.content import blobs, repositories, uploads
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.oci.names import RepositoryName
from registry.services.content.blobs import Blobs
from registry.services.content.upload_chunks import Chunk, measured
from registry.services.content.upload_leases import UploadLeases
from registry.services.quotas.quotas import Quotas, require_room
from storage.digest import Digest
from storage.errors import StoreError, UploadDataLostError, UploadLockedError
from storage.keys import blob_key, digest_of, new_generation
from storage.staging import StagedUpload, StagingArea
from storage.stores import Stores

_NOWHERE = RepositoryName("(moving)")
"""Internal repository of sessions that move blobs. Not a valid name, so clients cannot use it."""

_RETRY = 60
"""Seconds after which a principal with too many sessions may retry."""

__all__ = ["Chunk", "UploadRow", "Uploads"]


def _unknown(upload_id: str) -> UploadUnknownError:
    return UploadUnknownError("no such upload session in this repository", {"upload": upload_id})


def _too_many(principal: Principal, most: int) -> TooManyRequestsError:
    return TooManyRequestsError(
        f"{principal.name} has {most} open upload sessions, which is the limit "
        "(limits.open_uploads): finish them, cancel them with DELETE, or wait until they expire",
        _RETRY,
    )


class _PublishedError(UploadBusyError):
    """The session's bytes are published, but the completing request has not linked them yet."""

    def __init__(self, row: UploadRow) -> None:
        super().__init__("another request is completing this upload session")
        self.row = row


class Uploads:
    """Upload sessions. A session is valid only in its repository and for its creator."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        linked: Blobs,
        quotas: Quotas,
        most: int,
    ) -> None:
        """Create the service.

        `most` is the maximum number of sessions per principal; 0 is no limit.
        """
        self._most = most
        self._db = database
        self._stores = stores
        self._blobs = linked
        self._quotas = quotas
        self._holds = UploadLeases(database)

    async def start(
        self,
        name: RepositoryName,
        principal: Principal,
        algorithm: str,
        *,
        since: float | None = None,
    ) -> UploadRow:
        """Start a session. Nothing is created in the store until bytes arrive.

        `since`, here and below, is the arrival time of the request, from `time.monotonic`. Quotas
        that existed at that time apply. Raises QuotaExceededError if a quota is full, and
        TooManyRequestsError if the principal has too many sessions.
        """
        if await self._quotas.hold_for(name, since):
            room = await self._quotas.find_room(name)
            if room is not None:
                room.require(1)
        return await self._begin(name, principal, algorithm, self._most)

    async def _begin(
        self, name: RepositoryName, principal: Principal, algorithm: str, most: int = 0
    ) -> UploadRow:
        def work(tx: Transaction) -> UploadRow:
            if most and uploads.count_of(tx, principal.name, most) >= most:
                raise _too_many(principal, most)
            # Lock the repository row: a concurrent deletion would otherwise miss this session.
            repository = repositories.find(tx, name, keep=True)
            row = UploadRow(
                id=str(uuid.uuid4()),
                repository=name,
                repository_generation=repository.generation if repository else None,
                principal=principal.name,
                algorithm=algorithm,
                offset=0,
                prefix=None,
                store=self._stores.current.name,
                generation=new_generation(),
                key=None,
            )
            uploads.insert(tx, row)
            return row

        return await self._db.write(work, actor=principal.name)

    async def get(self, name: RepositoryName, principal: Principal, upload_id: str) -> UploadRow:
        """Return the session.

        Raises UploadUnknownError if it does not exist in this repository for this principal.
        """

        def work(tx: Transaction) -> UploadRow | None:
            row = uploads.find(tx, upload_id)
            if row is None or (row.repository, row.principal) != (name, principal.name):
                return None
            return row if _belongs(row, repositories.find(tx, name)) else None

        row = await self._db.read(work)
        if row is None:
            raise _unknown(upload_id)
        return row

    async def append(
        self,
        name: RepositoryName,
        principal: Principal,
        upload_id: str,
        chunk: Chunk,
        *,
        since: float | None = None,
    ) -> UploadRow:
        """Append a chunk. Return the session at its new, durable offset.

        If the body is interrupted, the received bytes are kept. QuotaExceededError ends the
        session.
        """
        limited = await self._quotas.hold_for(name, since)
        async with self._held(name, principal, upload_id) as (row, staged):
            try:
                await self._receive(row, staged, chunk, limited=limited)
            except (ClientDisconnectedError, BodyStalledError):
                await self._acknowledge(row, staged, limited=limited)
                raise
            return await self._acknowledge(row, staged, limited=limited)

    async def complete(
        self,
        name: RepositoryName,
        principal: Principal,
        upload_id: str,
        chunk: Chunk,
        digest: Digest,
        *,
        since: float | None = None,
    ) -> None:
        """Append the last chunk, verify the digest, publish the bytes and link the blob.

        DigestMismatchError and QuotaExceededError end the session.
        """
        limited = await self._quotas.hold_for(name, since)
        try:
            async with self._held(name, principal, upload_id) as (row, staged):
                published, key = await self._publish(row, staged, chunk, digest, limited=limited)
                await self._link(published, digest, key, limited=limited)
                staged.session_ended = True
        except _PublishedError as error:
            # Another request published the bytes. It was interrupted before linking, or is about to
            # link.
            row = error.row
            if row.key is None or row.key != blob_key(digest, row.generation):
                raise
            await self._link(row, digest, row.key, limited=limited)

    async def cancel(self, name: RepositoryName, principal: Principal, upload_id: str) -> None:
        """End the session and delete its bytes."""
        async with self._held(name, principal, upload_id) as (row, staged):
            await self._end(row, staged)

    async def move(self, blob: BlobRow, body: AsyncIterable[bytes], keep: float | None) -> bool:
        """Copy a blob into the store of new blobs and point its row at the copy.

        Returns False if the row has changed in the meantime. The old bytes stay for `keep` seconds;
        None means that there are none. Raises DigestMismatchError if `body` is not the blob, the
        errors of reading `body`, and StoreError.
        """
        session = await self._begin(_NOWHERE, OPERATOR, blob.digest.algorithm)
        try:
            async with self._held(_NOWHERE, OPERATOR, session.id) as (row, staged):
                copied, key = await self._publish(
                    row, staged, Chunk(body), blob.digest, limited=False
                )
                return await self._switch(copied, blob, key, keep)
        except BaseException:
            # If this fails, the expiry job ends the session.
            with contextlib.suppress(RegistryError, StoreError):
                await self.cancel(_NOWHERE, OPERATOR, session.id)
            raise

    async def is_any_idle(self, before: int) -> bool:
        """Return whether `expire` has work to do."""
        names = self._stores.names
        return bool(await self._db.read(lambda tx: uploads.list_idle(tx, names, before, 1)))

    async def expire(self, before: int) -> int:
        """End a batch of sessions without activity since `before`. Return their number.

        `before` is in microseconds.
        """
        names = self._stores.names
        idle = await self._db.read(lambda tx: uploads.list_idle(tx, names, before, 100))
        return sum([await self._expire(row, before) for row in idle])

    async def _expire(self, idle: UploadRow, before: int) -> bool:
        # Not idle after all: a request is using the session or has ended it.
        with contextlib.suppress(UploadLockedError, UploadUnknownError):
            async with self._claimed(idle) as staged:
                # Check again: a request may have used the session before the claim.
                row = await self._db.read(lambda tx: uploads.find_idle(tx, idle.id, before))
                if row is not None:
                    await self._end(row, staged)
                    return True
        return False

    async def recover(self) -> int:
        """Delete staged bytes without a session, which a crash has left. Return their number."""
        return sum([await self._recover(store.staging) for store in self._stores])

    async def _recover(self, staging: StagingArea) -> int:
        ids = await staging.list_sessions()
        removed = 0
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            present = await self._db.read(lambda tx, some=some: uploads.list_present(tx, some))  # type: ignore[misc]
            for upload_id in set(some) - present:
                with contextlib.suppress(UploadLockedError):
                    staged = await staging.claim(upload_id)
                    await staged.abort()
                    removed += 1
        return removed

    @contextlib.asynccontextmanager
    async def _held(
        self, name: RepositoryName, principal: Principal, upload_id: str
    ) -> AsyncIterator[tuple[UploadRow, StagedUpload]]:
        """Hold the session for one request, resumed at its acknowledged offset."""
        found = await self.get(name, principal, upload_id)
        try:
            async with self._claimed(found) as staged:
                # Read again: the session may have changed or ended before the claim.
                try:
                    row = await self.get(name, principal, upload_id)
                except UploadUnknownError:
                    await staged.abort()
                    raise
                await self._resume(row, staged)
                try:
                    yield row, staged
                except UploadDataLostError as error:  # the store detects the loss only now
                    await self._end(row, staged)
                    raise _unknown(upload_id) from error
                except QuotaExceededError:
                    if staged.published is None:
                        await self._end(row, staged)
                    raise
        except UploadLockedError as error:
            raise UploadBusyError("another request is using this upload session") from error

    @contextlib.asynccontextmanager
    async def _claimed(self, row: UploadRow) -> AsyncIterator[StagedUpload]:
        """Hold the staged bytes, by a lock of the store or a lease of the session's row."""
        staging = self._staging_of(row)
        if staging.supports_locking:
            staged = await staging.claim(row.id)
            try:
                yield staged
            finally:
                await staged.release()
            return
        hold, published = None, None
        try:
            async with self._holds.hold(row.id) as hold:
                if hold is None:
                    raise _unknown(row.id)
                staged = await staging.claim(row.id, hold.record)
                try:
                    yield staged
                finally:
                    await staged.release()
                    hold.over, published = staged.session_ended, staged.published
        finally:
            if hold is not None and hold.lost:
                await self._disown(replace(row, claim=hold.record.claim), published)

    async def _disown(self, row: UploadRow, published: str | None) -> None:
        """Queue deletion of keys written by a claim that was superseded or whose session has ended.

        A later claim may have queued the same keys, and they may have been deleted before the bytes
        arrived.
        """
        put = self._list_own(row)
        if published is not None and digest_of(published) is not None:
            put.add(published)

        def work(tx: Transaction) -> None:
            now = uploads.find(tx, row.id, lock=True)
            owned: set[str | None] = {None} if now is None else {*self._list_keys(now), now.key}
            for key in put - owned:
                digest = digest_of(key)
                blob = blobs.find_anywhere(tx, digest, keep=True) if digest is not None else None
                if blob is None or blob.key != key:
                    pending_deletions.insert(tx, row.store, key, "put too late")

        await self._db.write(work, actor=OPERATOR.name)

    async def _resume(self, row: UploadRow, staged: StagedUpload) -> None:
        """Resume at the acknowledged offset.

        Raises _PublishedError if the bytes are already published, and UploadUnknownError if they
        are lost.
        """
        lost = False
        try:
            await staged.resume(row.offset, row.algorithm, row.prefix)
        except UploadDataLostError:
            lost = True
        # An empty blob has no staged bytes before or after publication, so that is no evidence.
        named = row.key if lost or row.offset == 0 else None
        if named is not None and await self._blobs.is_stored(row.store, named, row.offset):
            await staged.abort()
            raise _PublishedError(row)
        if lost:
            await self._end(row, staged)
            raise _unknown(row.id)

    async def _publish(
        self, row: UploadRow, staged: StagedUpload, chunk: Chunk, digest: Digest, *, limited: bool
    ) -> tuple[UploadRow, str]:
        """Append the last chunk, verify and publish. Return the row and the key of the bytes."""
        if not staged.sealed:  # otherwise an earlier request was interrupted here
            try:
                await self._receive(row, staged, chunk, limited=limited)
            except (ClientDisconnectedError, BodyStalledError):
                await self._acknowledge(row, staged, limited=limited)
                raise
            await staged.seal()
        row = self._renewed(row, digest)
        key = staged.final_key(blob_key(digest, row.generation))
        if staged.known_digest(digest.algorithm, row.prefix) is None:
            # Reading the bytes may publish them, so the key needs an owner first.
            row = await self._name_key(row, staged, key, limited=limited)
        actual = await staged.digest(digest.algorithm, row.prefix)
        if actual != digest:
            await self._end(row, staged)
            raise DigestMismatchError(
                "the bytes do not have this digest; the session has ended",
                {"expected": str(digest), "actual": str(actual)},
            )
        row = await self._name_key(row, staged, key, limited=limited)
        await staged.publish(blob_key(digest, row.generation))
        return row, key

    async def _receive(
        self, row: UploadRow, staged: StagedUpload, chunk: Chunk, *, limited: bool
    ) -> None:
        if chunk.start is not None and chunk.start != staged.offset:
            raise UploadOutOfOrderError(staged.offset)
        body = measured(chunk)
        asks = limited and chunk.announced != 0
        room = await self._quotas.find_room(row.repository) if asks else None
        if room is not None:
            room.require(chunk.announced or 0)
            body = room.bound(body)
        try:
            await staged.append(body)
        except (SizeInvalidError, StoreError):
            await staged.rollback()
            raise

    async def _acknowledge(
        self, row: UploadRow, staged: StagedUpload, *, limited: bool
    ) -> UploadRow:
        """Make the new offset durable. Return the new row.

        If the store can lock, the row also gets the key for the digest so far, which saves
        `complete` a transaction: Docker sends a blob in a single PATCH, so that digest is usually
        the final one.
        """
        await staged.sync()
        row = self._renewed(row, None)
        prefix = staged.prefix()
        key = (
            blob_key(prefix, row.generation)
            if prefix and self._staging_of(row).supports_locking
            else None
        )
        return await self._advance(row, self._moved(row, staged, key, prefix), limited=limited)

    async def _name_key(
        self, row: UploadRow, staged: StagedUpload, key: str, *, limited: bool
    ) -> UploadRow:
        """Record the key in the row before bytes appear under it."""
        if row.key == key:
            return row
        moved = self._moved(row, staged, key, staged.prefix())
        return await self._advance(row, moved, limited=limited)

    @staticmethod
    def _moved(
        row: UploadRow, staged: StagedUpload, key: str | None, prefix: Digest | None
    ) -> UploadRow:
        state = staged.resume_state or None
        return replace(row, offset=staged.offset, prefix=prefix, key=key, parts=state)

    async def _advance(self, row: UploadRow, moved: UploadRow, *, limited: bool) -> UploadRow:
        """Save the progress of the session, and queue deletion of keys it no longer owns."""
        # The new row covers the keys of this claim, so only keys of earlier claims remain.
        left = self._list_keys(replace(row, claim=row.claim - 1)) - self._list_keys(moved)
        if row.key not in {None, moved.key} and not self._staging_of(row).supports_locking:
            left.add(str(row.key))

        def work(tx: Transaction) -> bool:
            there = uploads.advance(tx, moved)
            for key in left if there else ():
                pending_deletions.insert(tx, row.store, key, "staged before")
            if limited and moved.offset > row.offset:
                require_room(tx, row.repository)
            return there

        if not await self._db.write(work, actor=row.principal):
            raise _unknown(row.id)
        return moved

    def _renewed(self, row: UploadRow, digest: Digest | None) -> UploadRow:
        """Return the row with a fresh generation if an earlier request tried another digest.

        The key of that attempt is queued for deletion and must never be used again.
        """
        named = digest_of(row.key) if row.key is not None else None
        if named in {None, digest} or self._staging_of(row).supports_locking:
            return row
        return replace(row, generation=new_generation())

    def _list_own(self, row: UploadRow) -> set[str]:
        """Return the keys of staged bytes that only the holder of this claim may have written."""
        bare = replace(row, parts=None)
        return self._list_keys(bare) - self._list_keys(replace(bare, claim=row.claim - 1))

    def _list_keys(self, row: UploadRow) -> set[str]:
        """Return the keys that only the session's row refers to."""
        return self._staging_of(row).possible_keys(row.id, row.parts or "", row.claim)

    def _staging_of(self, row: UploadRow) -> StagingArea:
        """Return the staging area of the session.

        Raises StoreUnavailableError if the session's store is not open.
        """
        return self._stores.get(row.store).staging

    async def _end(self, row: UploadRow, staged: StagedUpload) -> None:
        """End a held session and delete its bytes."""
        staged.session_ended = await self._forget(row)
        await staged.abort()

    async def _forget(self, row: UploadRow) -> bool:
        """End a session, and queue deletion of its keys, which may have bytes.

        Returns False if the session no longer exists or another claim has superseded this one.
        """

        def work(tx: Transaction) -> bool:
            # Read the current row: the store has written to it since.
            now = uploads.find(tx, row.id, lock=True)
            if now is None or not uploads.delete(tx, row.id, row.claim):
                return False
            for key in self._list_keys(now) | ({now.key} if now.key is not None else set()):
                pending_deletions.insert(tx, now.store, key, "upload ended")
            return True

        return await self._db.write(work, actor=OPERATOR.name, frees=True)

    async def _link(self, row: UploadRow, digest: Digest, key: str, *, limited: bool) -> None:
        """Turn published bytes into a blob of the repository, and delete the session."""
        blob = BlobRow(digest, row.offset, row.store, key, BlobState.LIVE)
        rest = self._list_keys(row) - {key}
        before = await self._db.read(lambda tx: blobs.find_anywhere(tx, blob.digest))
        broken = before.key if before and not await self._blobs.is_whole(before) else None

        def work(tx: Transaction) -> None:
            # Lock the repository first. A deletion locks it exclusively before it detaches
            # sessions.
            repository = repositories.ensure(tx, row.repository)
            session = uploads.find(tx, row.id, lock=True)
            linked = blobs.find(tx, row.repository, blob.digest)
            if session is None and linked is not None and linked.key != broken:
                return  # another request of the session has linked the blob
            if session is None or not _belongs(session, repository):
                raise _unknown(row.id)
            if not uploads.delete(tx, row.id, row.claim):
                raise UploadBusyError("another request has taken over this upload session")
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key == broken:
                blobs.put(tx, blob)
                if stored is not None:
                    pending_deletions.insert(tx, stored.store, stored.key, "replaced by a push")
            else:
                # An intact copy exists, so this one is not needed.
                pending_deletions.insert(tx, blob.store, blob.key, "duplicate upload")
            blobs.link(tx, repository, blob.digest)
            if limited:
                require_room(tx, row.repository, before=row.id)
            for other in rest:
                pending_deletions.insert(tx, row.store, other, "staged before")

        try:
            await self._db.write(work, actor=row.principal)
        except QuotaExceededError:
            await self._forget(row)
            raise

    async def _switch(self, row: UploadRow, blob: BlobRow, key: str, keep: float | None) -> bool:
        """Point the blob's row at the published bytes, and delete the session."""
        rest = self._list_keys(row) - {key}

        def work(tx: Transaction) -> bool:
            session = uploads.find(tx, row.id, lock=True)
            if session is None or not uploads.delete(tx, row.id, row.claim):
                raise UploadBusyError("another has taken over this upload session")
            for other in rest:
                pending_deletions.insert(tx, row.store, other, "staged before")
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key != blob.key:
                pending_deletions.insert(tx, row.store, key, "moved too late")
                return False
            blobs.put(tx, replace(blob, store=row.store, key=key, state=BlobState.LIVE))
            if keep is not None:
                # Readers that have read the old row still read from the old key.
                until = tx.now + int(keep * 1_000_000)
                pending_deletions.insert(tx, blob.store, blob.key, "moved", not_before=until)
            return True

        return await self._db.write(work, actor=OPERATOR.name)


def _belongs(row: UploadRow, repository: repositories.RepositoryRow | None) -> bool:
    """Return whether the repository is the session's own, or was created after the session."""
    generation = repository.generation if repository else None
    return row.repository_generation in {None, generation}
