"""Upload sessions: bytes first, then rows. Design D2 and D3 give the order and the reasons."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace

from registry.auth.principals import OPERATOR, Principal
from registry.errors import (
    BodyStalledError,
    ClientGoneError,
    DigestMismatchError,
    SizeInvalidError,
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
from storage.digest import Digest
from storage.errors import StagedBusyError, StagedLostError, StoreError
from storage.keys import blob_key, new_generation
from storage.staging import Staged, Staging

__all__ = ["Chunk", "UploadRow", "Uploads"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A request body. `start` and `length` in bytes, where the request stated a range."""

    body: AsyncIterable[bytes]
    start: int | None = None
    length: int | None = None


def _unknown(upload_id: str) -> UploadUnknownError:
    return UploadUnknownError("no such upload session in this repository", {"upload": upload_id})


def _blob(row: UploadRow, digest: Digest, size: int) -> BlobRow:
    """What the session's bytes become."""
    return BlobRow(digest, size, row.store, blob_key(digest, row.generation), BlobState.LIVE)


class _PublishedError(UploadBusyError):
    """The session's bytes are under their key, and its request has not linked them yet."""

    def __init__(self, row: UploadRow) -> None:
        super().__init__("another request is completing this upload session")
        self.row = row


async def _measured(chunk: Chunk) -> AsyncIterator[bytes]:
    """The body, ended with SizeInvalidError as soon as it is not as long as it was announced."""
    received = 0
    async for piece in chunk.body:
        received += len(piece)
        if chunk.length is not None and received > chunk.length:
            break
        yield piece
    if chunk.length is not None and received != chunk.length:
        raise SizeInvalidError(
            f"the body has not the {chunk.length} bytes of its Content-Range",
            {"announced": chunk.length},
        )


class Uploads:
    """A session is worth something only in its repository and to the principal that began it."""

    def __init__(self, database: Database, staging: Staging, store: str, linked: Blobs) -> None:
        """`store`: the name of the store that `staging` publishes to."""
        self._db = database
        self._staging = staging
        self._store = store
        self._blobs = linked

    async def start(self, name: RepositoryName, principal: Principal, algorithm: str) -> UploadRow:
        """Begin a session. Nothing is created in the store until bytes come."""

        def work(tx: Transaction) -> UploadRow:
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
                store=self._store,
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
        self, name: RepositoryName, principal: Principal, upload_id: str, chunk: Chunk
    ) -> UploadRow:
        """Add a chunk; the session at its new offset, durable. A cut body keeps what arrived."""
        async with self._held(name, principal, upload_id) as (row, staged):
            try:
                await self._receive(staged, chunk)
            except (ClientGoneError, BodyStalledError):
                await self._acknowledge(row, staged)
                raise
            return await self._acknowledge(row, staged)

    async def complete(
        self,
        name: RepositoryName,
        principal: Principal,
        upload_id: str,
        chunk: Chunk,
        digest: Digest,
    ) -> None:
        """Add the last chunk, verify, publish, link. A wrong digest ends the session."""
        try:
            row, blob = await self._publish(name, principal, upload_id, chunk, digest)
        except _PublishedError as published:
            # By a request that was cut off before it came to link them, or is about to.
            row, blob = published.row, _blob(published.row, digest, published.row.offset)
            if row.key != blob.key:
                raise
        await self._link(row, blob)

    async def cancel(self, name: RepositoryName, principal: Principal, upload_id: str) -> None:
        """End the session and free its bytes."""
        async with self._held(name, principal, upload_id) as (row, staged):
            await self._end(row, staged)

    async def is_any_idle(self, before: int) -> bool:
        """Whether `expire` would find any."""
        return bool(await self._db.read(lambda tx: uploads.list_idle(tx, before, 1)))

    async def expire(self, before: int) -> int:
        """End sessions without activity since `before`, in microseconds; how many."""
        idle = await self._db.read(lambda tx: uploads.list_idle(tx, before, 100))
        return sum(await asyncio.gather(*(self._expire(row.id, before) for row in idle)))

    async def _expire(self, upload_id: str, before: int) -> bool:
        with contextlib.suppress(StagedBusyError):  # a request is at it: not idle after all
            staged = await self._staging.claim(upload_id)
            try:
                # Look again: before the claim a request may have come and gone.
                row = await self._db.read(lambda tx: uploads.find_idle(tx, upload_id, before))
                if row is not None:
                    await self._end(row, staged)
                    return True
            finally:
                await staged.release()
        return False

    async def recover(self) -> int:
        """Remove staged bytes that no session owns: what a crash left between row and bytes."""
        ids = await self._staging.list()
        removed = 0
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            present = await self._db.read(lambda tx, some=some: uploads.list_present(tx, some))  # type: ignore[misc]
            for upload_id in set(some) - present:
                with contextlib.suppress(StagedBusyError):
                    staged = await self._staging.claim(upload_id)
                    await staged.discard()
                    removed += 1
        return removed

    @contextlib.asynccontextmanager
    async def _held(
        self, name: RepositoryName, principal: Principal, upload_id: str
    ) -> AsyncIterator[tuple[UploadRow, Staged]]:
        """Hold the session for one request, at its acknowledged offset."""
        await self.get(name, principal, upload_id)
        try:
            staged = await self._staging.claim(upload_id)
        except StagedBusyError as error:
            raise UploadBusyError("another request is using this upload session") from error
        try:
            # Read again: the session may have moved or ended before the claim.
            try:
                row = await self.get(name, principal, upload_id)
            except UploadUnknownError:
                await staged.discard()
                raise
            await self._resume(row, staged)
            yield row, staged
        finally:
            await staged.release()

    async def _resume(self, row: UploadRow, staged: Staged) -> None:
        """Go on at the acknowledged offset, unless the bytes are published already, or lost."""
        lost = False
        try:
            await staged.resume(row.offset, row.algorithm, row.prefix)
        except StagedLostError:
            lost = True
        # An empty blob leaves as much behind when it is published as it had before.
        named = row.key if lost or row.offset == 0 else None
        if named is not None and await self._blobs.is_stored(named, row.offset):
            await staged.discard()
            raise _PublishedError(row)
        if lost:
            await self._end(row, staged)
            raise _unknown(row.id)

    async def _publish(
        self,
        name: RepositoryName,
        principal: Principal,
        upload_id: str,
        chunk: Chunk,
        digest: Digest,
    ) -> tuple[UploadRow, BlobRow]:
        """Add the last chunk, verify, let the bytes appear under their key."""
        async with self._held(name, principal, upload_id) as (row, staged):
            try:
                await self._receive(staged, chunk)
            except (ClientGoneError, BodyStalledError):
                await self._acknowledge(row, staged)
                raise
            actual = await staged.digest(digest.algorithm, row.prefix)
            if actual != digest:
                await self._end(row, staged)
                raise DigestMismatchError(
                    "the bytes do not have this digest; the session has ended",
                    {"expected": str(digest), "actual": str(actual)},
                )
            blob = _blob(row, digest, staged.offset)
            await self._name_key(row, staged, blob.key)
            await staged.publish(blob.key)
            return row, blob

    async def _receive(self, staged: Staged, chunk: Chunk) -> None:
        if chunk.start is not None and chunk.start != staged.offset:
            raise UploadOutOfOrderError(staged.offset)
        try:
            await staged.append(_measured(chunk))
        except (SizeInvalidError, StoreError):
            await staged.rollback()
            raise

    async def _acknowledge(self, row: UploadRow, staged: Staged) -> UploadRow:
        """Make the new offset durable. The key named beside it saves `complete` a transaction:
        Docker sends a blob in one PATCH, and its digest is then the prefix.
        """
        await staged.sync()
        prefix = staged.prefix()
        key = blob_key(prefix, row.generation) if prefix else None
        return await self._advance(replace(row, offset=staged.offset, prefix=prefix, key=key))

    async def _name_key(self, row: UploadRow, staged: Staged, key: str) -> None:
        """Give the key its owner before bytes appear under it."""
        if row.key != key:
            await self._advance(replace(row, offset=staged.offset, prefix=staged.prefix(), key=key))

    async def _advance(self, row: UploadRow) -> UploadRow:
        def work(tx: Transaction) -> bool:
            return uploads.advance(tx, row.id, offset=row.offset, prefix=row.prefix, key=row.key)

        if not await self._db.write(work, actor=row.principal):
            raise _unknown(row.id)
        return row

    async def _end(self, row: UploadRow, staged: Staged) -> None:
        """End a held session: its key, if it named one, may have bytes and is doomed."""

        def work(tx: Transaction) -> None:
            if uploads.delete(tx, row.id) and row.key is not None:
                doomed.insert(tx, row.store, row.key, "upload ended")

        await self._db.write(work, actor=OPERATOR.name)
        await staged.discard()

    async def _link(self, row: UploadRow, blob: BlobRow) -> None:
        """Make published bytes a blob of the repository, and the session's row go with it."""
        before = await self._db.read(lambda tx: blobs.find_anywhere(tx, blob.digest))
        broken = before.key if before and not await self._blobs.is_whole(before) else None

        def work(tx: Transaction) -> None:
            session = uploads.find(tx, row.id, lock=True)
            linked = blobs.find(tx, row.repository, blob.digest)
            if session is None and linked is not None and linked.key != broken:
                return  # another request of the session was faster
            repository = repositories.ensure(tx, row.repository)
            if session is None or not _belongs(session, repository):
                raise _unknown(row.id)
            stored = blobs.lock(tx, blob.digest)
            if stored is None or stored.key == broken:
                blobs.put(tx, blob)
                if stored is not None:
                    doomed.insert(tx, stored.store, stored.key, "replaced by a push")
            else:
                # The bytes are there already, whole. One copy is enough.
                blobs.touch(tx, blob.digest)
                doomed.insert(tx, blob.store, blob.key, "duplicate upload")
            blobs.link(tx, repository, blob.digest)
            uploads.delete(tx, row.id)

        await self._db.write(work, actor=row.principal)


def _belongs(row: UploadRow, repository: repositories.RepositoryRow | None) -> bool:
    """Whether the repository is the one that the session began in, or was born since."""
    generation = repository.generation if repository else None
    return row.repository_generation in {None, generation}
