"""Upload sessions: their life from the first request to completion, cancellation or expiry."""

import contextlib
import uuid
from collections.abc import AsyncIterator

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy.principals import Principal
from registry.errors import (
    BodyStalledError,
    ClientDisconnectedError,
    DigestMismatchError,
    QuotaExceededError,
    TooManyRequestsError,
    UploadBusyError,
    UploadUnknownError,
)
from registry.metadata.content import repositories, uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.content.publication import Publication
from registry.services.content.unowned_objects import UnownedObjects
from registry.services.content.upload_chunks import Chunk, append_chunk
from registry.services.content.upload_claims import UploadClaim, UploadClaims
from registry.services.content.upload_keys import UploadKeys, session_unknown
from registry.services.content.upload_leases import UploadLeases
from registry.services.content.whole_uploads import WholeUploads
from registry.services.quotas.quotas import Quotas
from storage.digest import Digest
from storage.errors import UploadDataLostError, UploadLockedError
from storage.keys import blob_key, new_generation
from storage.staging import StagedUpload, StagingArea
from storage.stores import Stores

_RETRY_AFTER_S = 60
"""Seconds after which a principal with too many sessions may retry."""

__all__ = ["Chunk", "OpenSession", "UploadRow", "UploadSessions"]


def _too_many(principal: Principal, most: int) -> TooManyRequestsError:
    return TooManyRequestsError(
        f"{principal.name} has {most} open upload sessions, which is the limit "
        "(limits.open_uploads): finish them, cancel them with DELETE, or wait until they expire",
        _RETRY_AFTER_S,
    )


class OpenSession(Struct, frozen=True):
    """A session that one request uses exclusively, at its acknowledged offset.

    `is_published` is set if an earlier request published the bytes but has not linked them yet.
    Nothing can then be read from or appended to `staged`.
    """

    row: UploadRow
    staged: StagedUpload
    is_published: bool = False


class UploadSessions:
    """Upload sessions. A session is valid only in its repository and for its creator."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        quotas: Quotas,
        keys: UploadKeys,
        publication: Publication,
        *,
        watch: RevisionWatch,
        most: int,
    ) -> None:
        """Create the service.

        `most` is the maximum number of sessions per principal; 0 is no limit.
        """
        self._most = most
        self._db = database
        self._stores = stores
        self._quotas = quotas
        self._keys = keys
        self._publication = publication
        self._watch = watch
        self._unowned = UnownedObjects(database, stores)
        self._claims = UploadClaims(keys, UploadLeases(database))
        self._whole = WholeUploads(database, keys, publication, self._claims)

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
        return await self.begin(name, principal, algorithm, self._most)

    async def begin(
        self, name: RepositoryName, principal: Principal, algorithm: str, most: int = 0
    ) -> UploadRow:
        """Start a session without a check of quotas.

        Raises TooManyRequestsError if the principal has `most` sessions; 0 is no limit.
        """

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
                prefix_digest=None,
                store=self._stores.current.name,
                key_generation=new_generation(),
                key=None,
            )
            uploads.insert(tx, row)
            return row

        # Nothing has to survive a power cut before the session has bytes.
        return await self._db.write(work, actor=principal.name, durable=False)

    async def get(self, name: RepositoryName, principal: Principal, upload_id: str) -> UploadRow:
        """Return the session.

        Raises UploadUnknownError if it does not exist in this repository for this principal.
        """
        row: UploadRow | None = self._watch.find_row(upload_id)
        if row is not None and row.repository == name and row.principal == principal.name:
            return row
        row = await self._db.read(
            lambda tx: uploads.find_own(tx, name, principal.name, upload_id), single=True
        )
        if row is None:
            raise session_unknown(upload_id)
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
        row = await self.get(name, principal, upload_id)
        if not limited:
            done = await self._whole.append(row, chunk)
            if isinstance(done, UploadRow):
                return done
            chunk = done
        async with self._open_unpublished(row) as session:
            await self._receive(session, chunk, limited=limited, then_sync=True)
            return await self._acknowledge(session, limited=limited)

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
        row = await self.get(name, principal, upload_id)
        if await self._whole.complete(row, chunk, digest, limited=limited):
            return
        async with self._open(row) as session:
            row, key = session.row, session.row.key
            if not session.is_published:
                await self.receive_last(session, chunk, limited=limited)
                row, key = await self._publication.publish(
                    row, session.staged, digest, limited=limited
                )
            # Otherwise another request published the bytes. It was interrupted before linking, or
            # is about to link.
            elif key is None or key != blob_key(digest, row.key_generation):
                raise _completing()
            await self._publication.link(row, digest, key, limited=limited)
            session.staged.session_ended = True

    async def cancel(self, name: RepositoryName, principal: Principal, upload_id: str) -> None:
        """End the session and delete its bytes."""
        async with self.open(name, principal, upload_id) as session:
            await self._abort(session.row, session.staged)

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
            async with self._claims.acquire(idle) as claim:
                # Check again: a request may have used the session before the claim.
                row = await self._db.read(lambda tx: uploads.find_idle(tx, idle.id, before))
                if row is not None:
                    await self._abort(row, claim.staged)
                    return True
        return False

    async def recover(self) -> int:
        """Delete bytes without an owner, which a crash has left. Return their number."""
        staged = sum([await self._recover(store.staging) for store in self._stores])
        return staged + await self._unowned.queue()

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
    async def open(
        self, name: RepositoryName, principal: Principal, upload_id: str
    ) -> AsyncIterator[OpenSession]:
        """Use the session exclusively, resumed at its acknowledged offset.

        DigestMismatchError and QuotaExceededError from the block end the session. Raises
        UploadBusyError while another request uses or completes the session, and UploadUnknownError
        as `get`.
        """
        found = await self.get(name, principal, upload_id)
        async with self._open_unpublished(found) as session:
            yield session

    @contextlib.asynccontextmanager
    async def _open_unpublished(self, found: UploadRow) -> AsyncIterator[OpenSession]:
        async with self._open(found) as session:
            if session.is_published:
                raise _completing()
            yield session

    @contextlib.asynccontextmanager
    async def _open(self, found: UploadRow) -> AsyncIterator[OpenSession]:
        """Use the session exclusively, also if its bytes are published."""
        try:
            async with self._claims.acquire(found) as claim:
                staged = claim.staged
                row = await self._require_usable(found, claim)
                session = await self._resume(row, staged)
                try:
                    yield session
                except UploadDataLostError as error:  # the store detects the loss only now
                    await self._abort(row, staged)
                    raise session_unknown(row.id) from error
                except UploadUnknownError:
                    await self._drop_bytes_without_session(session)
                    raise
                except (DigestMismatchError, QuotaExceededError):
                    staged.session_ended = await self._keys.delete_session(row)
                    if staged.published is None and not session.is_published:
                        await staged.abort()
                    raise
        except UploadLockedError as error:
            raise UploadBusyError("another request is using this upload session") from error

    async def _require_usable(self, found: UploadRow, claim: UploadClaim) -> UploadRow:
        """Return the claimed session, which may have changed or ended since it was found.

        A lock of the store says nothing about the row. If the row has changed since it was read,
        either the staged bytes have another length, or `save_progress` finds out. A lease is a
        claim of the row itself.
        """
        lease = claim.lease
        try:
            if lease is None:
                if claim.staged.size == found.offset:
                    return found
                return await self.get(found.repository, Principal(found.principal), found.id)
            if not lease.belongs:
                raise session_unknown(found.id)
        except UploadUnknownError:
            await claim.staged.abort()
            raise
        return lease.row

    async def _drop_bytes_without_session(self, session: OpenSession) -> None:
        """Delete the staged bytes if the session ended between its read and the claim."""
        row, staged = session.row, session.staged
        if session.is_published or staged.published is not None:
            return
        if not self._keys.staging_of(row).supports_locking:
            return
        if await self._db.read(lambda tx: uploads.find(tx, row.id)) is None:
            await staged.abort()

    async def _resume(self, row: UploadRow, staged: StagedUpload) -> OpenSession:
        """Resume at the acknowledged offset. Raises UploadUnknownError if the bytes are lost."""
        lost = False
        try:
            await staged.resume(row.offset, row.algorithm, row.prefix_digest)
        except UploadDataLostError:
            lost = True
        # An empty blob has no staged bytes before or after publication, so that is no evidence.
        if (lost or row.offset == 0) and await self._publication.is_published(row):
            await staged.abort()
            return OpenSession(row, staged, is_published=True)
        if lost:
            await self._abort(row, staged)
            raise session_unknown(row.id)
        return OpenSession(row, staged)

    async def receive_last(self, session: OpenSession, chunk: Chunk, *, limited: bool) -> None:
        """Append the last chunk and seal the bytes. `limited` is whether quotas apply."""
        if session.staged.sealed:
            return  # an earlier request was interrupted here
        await self._receive(session, chunk, limited=limited, then_sync=False)
        await session.staged.seal()

    async def _receive(
        self, session: OpenSession, chunk: Chunk, *, limited: bool, then_sync: bool
    ) -> None:
        """Append a chunk. If its body is interrupted, keep and acknowledge the received bytes."""
        asks = limited and chunk.announced != 0
        room = await self._quotas.find_room(session.row.repository) if asks else None
        try:
            await append_chunk(session.staged, chunk, room, then_sync=then_sync)
        except (ClientDisconnectedError, BodyStalledError):
            await self._acknowledge(session, limited=limited)
            raise

    async def _acknowledge(self, session: OpenSession, *, limited: bool) -> UploadRow:
        """Save the new offset, and make the bytes durable if they must be. Return the new row.

        If the store can lock, the row also gets the key for the digest so far, which saves
        `complete` a transaction: Docker sends a blob in a single PATCH, so that digest is usually
        the final one.
        """
        staged = session.staged
        row = replace(session.row, offset=staged.offset)
        await staged.sync(with_name=self._keys.survives_power_cut(row))
        row = self._keys.with_fresh_generation(session.row, None)
        prefix = staged.prefix_digest()
        names_key = prefix is not None and self._keys.staging_of(row).supports_locking
        key = blob_key(prefix, row.key_generation) if prefix is not None and names_key else None
        return await self._keys.save_progress(row, staged, key, limited=limited)

    async def _abort(self, row: UploadRow, staged: StagedUpload) -> None:
        """End a claimed session and delete its bytes."""
        staged.session_ended = await self._keys.delete_session(row)
        await staged.abort()


def _completing() -> UploadBusyError:
    return UploadBusyError("another request is completing this upload session")
