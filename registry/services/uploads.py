"""Upload sessions: bytes first, then rows. Design D2 and D3 give the order and the reasons."""

import contextlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import replace

from registry.auth.principals import OPERATOR, Principal
from registry.errors import (
    BodyStalledError,
    ClientGoneError,
    DigestMismatchError,
    QuotaExceededError,
    RegistryError,
    SizeInvalidError,
    TooManyRequestsError,
    UploadBusyError,
    UploadOutOfOrderError,
    UploadUnknownError,
)
from registry.metadata import blobs, doomed, repositories, uploads
from registry.metadata.blobs import BlobRow, BlobState
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.metadata.uploads import UploadRow
from registry.oci.names import RepositoryName
from registry.services.blobs import Blobs
from registry.services.chunks import Chunk, measured
from registry.services.quotas import Quotas, require_room
from registry.services.upload_holds import UploadHolds
from storage.digest import Digest
from storage.errors import StagedBusyError, StagedLostError, StoreError
from storage.keys import blob_key, find_digest, new_generation
from storage.staging import Staged, Staging
from storage.stores import Stores

_NOWHERE = RepositoryName("(moving)")
"""No client can ask for a session of this repository: it is no name."""

_RETRY = 60
"""Seconds after which a principal with too many sessions may ask again."""

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
    """The session's bytes are under their key, and its request has not linked them yet."""

    def __init__(self, row: UploadRow) -> None:
        super().__init__("another request is completing this upload session")
        self.row = row


class Uploads:
    """A session is worth something only in its repository and to the principal that began it."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        linked: Blobs,
        quotas: Quotas,
        most: int,
    ) -> None:
        """`most`: sessions that a principal may have at once, 0 for any number."""
        self._most = most
        self._db = database
        self._stores = stores
        self._blobs = linked
        self._quotas = quotas
        self._holds = UploadHolds(database)

    async def start(
        self,
        name: RepositoryName,
        principal: Principal,
        algorithm: str,
        *,
        since: float | None = None,
    ) -> UploadRow:
        """Begin a session. Nothing is created in the store until bytes come.

        QuotaExceededError where none would fit, TooManyRequestsError for a principal that has too
        many. `since`, of `time.monotonic`, here and below: when
        the request came, which is bound by the quotas that there were by then.
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
            # Kept: a removal at the same moment would take the session with it, unseen.
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
        """The session; UploadUnknownError in another repository or for another principal."""

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
        """Add a chunk; the session at its new offset, durable. A cut body keeps what arrived.

        QuotaExceededError ends the session.
        """
        limited = await self._quotas.hold_for(name, since)
        async with self._held(name, principal, upload_id) as (row, staged):
            try:
                await self._receive(row, staged, chunk, limited=limited)
            except (ClientGoneError, BodyStalledError):
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
        """Add the last chunk, verify, publish, link. A wrong digest ends the session, and so does
        QuotaExceededError.
        """
        limited = await self._quotas.hold_for(name, since)
        try:
            async with self._held(name, principal, upload_id) as (row, staged):
                published, key = await self._publish(row, staged, chunk, digest, limited=limited)
                await self._link(published, digest, key, limited=limited)
                staged.over = True
        except _PublishedError as error:
            # By a request that was cut off before it came to link them, or is about to.
            row = error.row
            if row.key is None or row.key != blob_key(digest, row.generation):
                raise
            await self._link(row, digest, row.key, limited=limited)

    async def cancel(self, name: RepositoryName, principal: Principal, upload_id: str) -> None:
        """End the session and free its bytes."""
        async with self._held(name, principal, upload_id) as (row, staged):
            await self._end(row, staged)

    async def move(self, blob: BlobRow, body: AsyncIterable[bytes], keep: float | None) -> bool:
        """Copy a blob into the store of new blobs, and let its row name the copy; False if the row
        has come to name other bytes meanwhile. The ones before stay for `keep` seconds; None: there
        never were any.

        DigestMismatchError if `body` is not the blob; what reading it raises, StoreError.
        """
        session = await self._begin(_NOWHERE, OPERATOR, blob.digest.algorithm)
        try:
            async with self._held(_NOWHERE, OPERATOR, session.id) as (row, staged):
                copied, key = await self._publish(
                    row, staged, Chunk(body), blob.digest, limited=False
                )
                return await self._switch(copied, blob, key, keep)
        except BaseException:
            # Else the job that expires sessions does it.
            with contextlib.suppress(RegistryError, StoreError):
                await self.cancel(_NOWHERE, OPERATOR, session.id)
            raise

    async def is_any_idle(self, before: int) -> bool:
        """Whether `expire` would find any."""
        names = self._stores.names
        return bool(await self._db.read(lambda tx: uploads.list_idle(tx, names, before, 1)))

    async def expire(self, before: int) -> int:
        """End sessions without activity since `before`, in microseconds; how many."""
        names = self._stores.names
        idle = await self._db.read(lambda tx: uploads.list_idle(tx, names, before, 100))
        return sum([await self._expire(row, before) for row in idle])

    async def _expire(self, idle: UploadRow, before: int) -> bool:
        # A request is at it, so that it is not idle after all, or has ended it.
        with contextlib.suppress(StagedBusyError, UploadUnknownError):
            async with self._claimed(idle) as staged:
                # Look again: before the claim a request may have come and gone.
                row = await self._db.read(lambda tx: uploads.find_idle(tx, idle.id, before))
                if row is not None:
                    await self._end(row, staged)
                    return True
        return False

    async def recover(self) -> int:
        """Remove staged bytes that no session owns: what a crash left between row and bytes."""
        return sum([await self._recover(store.staging) for store in self._stores])

    async def _recover(self, staging: Staging) -> int:
        ids = await staging.list()
        removed = 0
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            present = await self._db.read(lambda tx, some=some: uploads.list_present(tx, some))  # type: ignore[misc]
            for upload_id in set(some) - present:
                with contextlib.suppress(StagedBusyError):
                    staged = await staging.claim(upload_id)
                    await staged.discard()
                    removed += 1
        return removed

    @contextlib.asynccontextmanager
    async def _held(
        self, name: RepositoryName, principal: Principal, upload_id: str
    ) -> AsyncIterator[tuple[UploadRow, Staged]]:
        """Hold the session for one request, at its acknowledged offset."""
        found = await self.get(name, principal, upload_id)
        try:
            async with self._claimed(found) as staged:
                # Read again: the session may have moved or ended before the claim.
                try:
                    row = await self.get(name, principal, upload_id)
                except UploadUnknownError:
                    await staged.discard()
                    raise
                await self._resume(row, staged)
                try:
                    yield row, staged
                except StagedLostError as error:  # as a store says that finds it out late
                    await self._end(row, staged)
                    raise _unknown(upload_id) from error
                except QuotaExceededError:
                    if staged.published is None:
                        await self._end(row, staged)
                    raise
        except StagedBusyError as error:
            raise UploadBusyError("another request is using this upload session") from error

    @contextlib.asynccontextmanager
    async def _claimed(self, row: UploadRow) -> AsyncIterator[Staged]:
        """Hold the staged bytes: by the store's lock, or else by the session's row."""
        staging = self._staging_of(row)
        if staging.locks:
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
                    hold.over, published = staged.over, staged.published
        finally:
            if hold is not None and hold.lost:
                await self._disown(replace(row, claim=hold.record.claim), published)

    async def _disown(self, row: UploadRow, published: str | None) -> None:
        """Doom what a hold put that was followed by another, or whose session ended meanwhile: who
        came later may have doomed the same keys, and they may have been swept before bytes came.
        """
        put = self._list_own(row)
        if published is not None and find_digest(published) is not None:
            put.add(published)

        def work(tx: Transaction) -> None:
            now = uploads.find(tx, row.id, lock=True)
            owned: set[str | None] = {None} if now is None else {*self._list_keys(now), now.key}
            for key in put - owned:
                digest = find_digest(key)
                blob = blobs.find_anywhere(tx, digest, keep=True) if digest is not None else None
                if blob is None or blob.key != key:
                    doomed.insert(tx, row.store, key, "put too late")

        await self._db.write(work, actor=OPERATOR.name)

    async def _resume(self, row: UploadRow, staged: Staged) -> None:
        """Go on at the acknowledged offset, unless the bytes are published already, or lost."""
        lost = False
        try:
            await staged.resume(row.offset, row.algorithm, row.prefix)
        except StagedLostError:
            lost = True
        # An empty blob leaves as much behind when it is published as it had before.
        named = row.key if lost or row.offset == 0 else None
        if named is not None and await self._blobs.is_stored(row.store, named, row.offset):
            await staged.discard()
            raise _PublishedError(row)
        if lost:
            await self._end(row, staged)
            raise _unknown(row.id)

    async def _publish(
        self, row: UploadRow, staged: Staged, chunk: Chunk, digest: Digest, *, limited: bool
    ) -> tuple[UploadRow, str]:
        """Add the last chunk, verify, let the bytes appear; the row, and the key they are under."""
        if not staged.sealed:  # else by a request that came no further
            try:
                await self._receive(row, staged, chunk, limited=limited)
            except (ClientGoneError, BodyStalledError):
                await self._acknowledge(row, staged, limited=limited)
                raise
            await staged.seal()
        row = self._renewed(row, digest)
        key = staged.key_for(blob_key(digest, row.generation))
        if staged.known_digest(digest.algorithm, row.prefix) is None:
            # Reading them may let them appear.
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
        self, row: UploadRow, staged: Staged, chunk: Chunk, *, limited: bool
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

    async def _acknowledge(self, row: UploadRow, staged: Staged, *, limited: bool) -> UploadRow:
        """Make the new offset durable. The key named beside it saves `complete` a transaction:
        Docker sends a blob in one PATCH, and its digest is then the prefix.
        """
        await staged.sync()
        row = self._renewed(row, None)
        prefix = staged.prefix()
        key = blob_key(prefix, row.generation) if prefix and self._staging_of(row).locks else None
        return await self._advance(row, self._moved(row, staged, key, prefix), limited=limited)

    async def _name_key(
        self, row: UploadRow, staged: Staged, key: str, *, limited: bool
    ) -> UploadRow:
        """Give the key its owner before bytes appear under it."""
        if row.key == key:
            return row
        moved = self._moved(row, staged, key, staged.prefix())
        return await self._advance(row, moved, limited=limited)

    @staticmethod
    def _moved(row: UploadRow, staged: Staged, key: str | None, prefix: Digest | None) -> UploadRow:
        state = staged.state or None
        return replace(row, offset=staged.offset, prefix=prefix, key=key, parts=state)

    async def _advance(self, row: UploadRow, moved: UploadRow, *, limited: bool) -> UploadRow:
        """Write how far the session has moved; keys that it owned before and no more are doomed."""
        # What this claim has put is in what is written, so that only earlier ones are left over.
        left = self._list_keys(replace(row, claim=row.claim - 1)) - self._list_keys(moved)
        if row.key not in {None, moved.key} and not self._staging_of(row).locks:
            left.add(str(row.key))

        def work(tx: Transaction) -> bool:
            there = uploads.advance(tx, moved)
            for key in left if there else ():
                doomed.insert(tx, row.store, key, "staged before")
            if limited and moved.offset > row.offset:
                require_room(tx, row.repository)
            return there

        if not await self._db.write(work, actor=row.principal):
            raise _unknown(row.id)
        return moved

    def _renewed(self, row: UploadRow, digest: Digest | None) -> UploadRow:
        """The row, for bytes that are not to be published as an earlier request tried: the key that
        it named is doomed and must never be used again.
        """
        named = find_digest(row.key) if row.key is not None else None
        if named in {None, digest} or self._staging_of(row).locks:
            return row
        return replace(row, generation=new_generation())

    def _list_own(self, row: UploadRow) -> set[str]:
        """The keys of staged bytes that only the holder of this very claim may have put."""
        bare = replace(row, parts=None)
        return self._list_keys(bare) - self._list_keys(replace(bare, claim=row.claim - 1))

    def _list_keys(self, row: UploadRow) -> set[str]:
        """The keys that only the session's row knows."""
        return self._staging_of(row).list_keys(row.id, row.parts or "", row.claim)

    def _staging_of(self, row: UploadRow) -> Staging:
        """Where the session's bytes are; StoreUnavailableError if that store is not open."""
        return self._stores.get(row.store).staging

    async def _end(self, row: UploadRow, staged: Staged) -> None:
        """End a held session with its bytes."""
        staged.over = await self._forget(row)
        await staged.discard()

    async def _forget(self, row: UploadRow) -> bool:
        """End a session: the keys that it named may have bytes and are doomed. Whether it was."""

        def work(tx: Transaction) -> bool:
            # As it is now: the store has written to it since it was read.
            now = uploads.find(tx, row.id, lock=True)
            if now is None or not uploads.delete(tx, row.id, row.claim):
                return False
            for key in self._list_keys(now) | ({now.key} if now.key is not None else set()):
                doomed.insert(tx, now.store, key, "upload ended")
            return True

        return await self._db.write(work, actor=OPERATOR.name, frees=True)

    async def _link(self, row: UploadRow, digest: Digest, key: str, *, limited: bool) -> None:
        """Make published bytes a blob of the repository, and the session's row go with it."""
        blob = BlobRow(digest, row.offset, row.store, key, BlobState.LIVE)
        rest = self._list_keys(row) - {key}
        before = await self._db.read(lambda tx: blobs.find_anywhere(tx, blob.digest))
        broken = before.key if before and not await self._blobs.is_whole(before) else None

        def work(tx: Transaction) -> None:
            # First the repository: who removes it has it alone, and then sets its sessions free.
            repository = repositories.ensure(tx, row.repository)
            session = uploads.find(tx, row.id, lock=True)
            linked = blobs.find(tx, row.repository, blob.digest)
            if session is None and linked is not None and linked.key != broken:
                return  # another request of the session was faster
            if session is None or not _belongs(session, repository):
                raise _unknown(row.id)
            if not uploads.delete(tx, row.id, row.claim):
                raise UploadBusyError("another request has taken over this upload session")
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key == broken:
                blobs.put(tx, blob)
                if stored is not None:
                    doomed.insert(tx, stored.store, stored.key, "replaced by a push")
            else:
                # The bytes are there already, whole. One copy is enough.
                doomed.insert(tx, blob.store, blob.key, "duplicate upload")
            blobs.link(tx, repository, blob.digest)
            if limited:
                require_room(tx, row.repository, before=row.id)
            for other in rest:
                doomed.insert(tx, row.store, other, "staged before")

        try:
            await self._db.write(work, actor=row.principal)
        except QuotaExceededError:
            await self._forget(row)
            raise

    async def _switch(self, row: UploadRow, blob: BlobRow, key: str, keep: float | None) -> bool:
        """Let the blob's row name published bytes, and the session's row go with it."""
        rest = self._list_keys(row) - {key}

        def work(tx: Transaction) -> bool:
            session = uploads.find(tx, row.id, lock=True)
            if session is None or not uploads.delete(tx, row.id, row.claim):
                raise UploadBusyError("another has taken over this upload session")
            for other in rest:
                doomed.insert(tx, row.store, other, "staged before")
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key != blob.key:
                doomed.insert(tx, row.store, key, "moved too late")
                return False
            blobs.put(tx, replace(blob, store=row.store, key=key, state=BlobState.LIVE))
            if keep is not None:
                # Whoever has read the row before is still going to read there.
                until = tx.now + int(keep * 1_000_000)
                doomed.insert(tx, blob.store, blob.key, "moved", not_before=until)
            return True

        return await self._db.write(work, actor=OPERATOR.name)


def _belongs(row: UploadRow, repository: repositories.RepositoryRow | None) -> bool:
    """Whether the repository is the one that the session began in, or was born since."""
    generation = repository.generation if repository else None
    return row.repository_generation in {None, generation}
