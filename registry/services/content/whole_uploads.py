"""Small uploads to a disk, whose requests need one job for their bytes and their rows.

A thread of the disk does all steps on the bytes, and passes the job on to the thread of the
database. `docs/adr/0022-fewer-hops-of-a-push.md` explains the design.
"""

import contextlib

from msgspec.structs import replace

from registry.errors import QuotaExceededError, UploadBusyError
from registry.metadata.content import uploads
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.content.publication import Publication
from registry.services.content.upload_chunks import Chunk
from registry.services.content.upload_claims import UploadClaims
from registry.services.content.upload_keys import UploadKeys, session_unknown
from storage.digest import Digest, Hasher
from storage.errors import StagedSizeError, UploadLockedError
from storage.job_threads import Then
from storage.keys import blob_key


class WholeUploads:
    """Requests whose body has arrived completely. Other requests take the ordinary path.

    The rows of the sessions may have changed since they were read, as in
    `UploadSessions._require_usable`: then the staged bytes have another length.
    """

    def __init__(
        self,
        database: Database,
        keys: UploadKeys,
        publication: Publication,
        claims: UploadClaims,
    ) -> None:
        self._db = database
        self._keys = keys
        self._publication = publication
        self._claims = claims

    async def append(self, row: UploadRow, chunk: Chunk) -> UploadRow | Chunk:
        """Append the first chunk of a session to which no quota applies, and return the new row.

        Returns the chunk if it has to be appended in the ordinary way. Raises UploadBusyError,
        UploadUnknownError and StoreError.
        """
        if chunk.whole is None or row.offset or row.key is not None or chunk.start:
            return chunk
        staging = self._keys.staging_of(row)
        if not staging.takes_whole or self._keys.survives_power_cut(row):
            return chunk
        size = await chunk.whole.find_size()
        if not size or chunk.length not in {None, size}:
            return chunk
        data, hasher, new = await chunk.whole.receive(), Hasher(row.algorithm), row

        def work(tx: Transaction) -> bool:
            nonlocal new
            prefix = hasher.digest()
            key = blob_key(prefix, row.key_generation)
            new = replace(row, offset=size, prefix_digest=prefix, key=key)
            return uploads.advance(tx, new, row)

        async def start(then: Then) -> bool:
            return bool(await staging.receive_whole(row.id, data, hasher, then))

        try:
            saved = await self._db.write_after(start, work, actor=row.principal, durable=False)
        except StagedSizeError:
            return chunk.with_body(data)
        except UploadLockedError as error:
            raise _busy() from error
        if not saved:
            await self._drop_bytes_without_row(row)
            raise session_unknown(row.id)
        return new

    async def _drop_bytes_without_row(self, row: UploadRow) -> None:
        """Delete the staged bytes if the session has ended since its row was read."""
        with contextlib.suppress(UploadLockedError):
            async with self._claims.acquire(row) as claim:
                if await self._db.read(lambda tx: uploads.find(tx, row.id)) is None:
                    await claim.staged.abort()

    async def complete(
        self, row: UploadRow, chunk: Chunk, digest: Digest, *, limited: bool
    ) -> bool:
        """Publish the acknowledged bytes of a session as a blob, if nothing is left to receive.

        Returns False if the session has to be completed in the ordinary way. Raises as
        `Publication.link`, and StoreError.
        """
        key = blob_key(digest, row.key_generation)
        if chunk.announced != 0 or chunk.start is not None or not row.offset or row.key != key:
            return False
        staging = self._keys.staging_of(row)
        if not (self._db.embedded and staging.takes_whole) or row.prefix_digest != digest:
            return False

        async def start(then: Then) -> object:
            return await staging.publish_whole(row.id, row.offset, key, then)

        try:
            await self._publication.link(row, digest, key, limited=limited, after=start)
        except StagedSizeError:
            return False
        except UploadLockedError as error:
            raise _busy() from error
        except QuotaExceededError:
            await self._keys.delete_session(row)
            raise
        return True


def _busy() -> UploadBusyError:
    return UploadBusyError("another request is using this upload session")
