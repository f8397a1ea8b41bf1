"""Claims of upload sessions: exclusive use by one request."""

import contextlib
from collections.abc import AsyncIterator

from msgspec import Struct
from msgspec.structs import replace

from registry.metadata.content.uploads import UploadRow
from registry.services.content.upload_keys import UploadKeys, session_unknown
from registry.services.content.upload_leases import UploadLease, UploadLeases
from storage.staging import StagedUpload


class UploadClaim(Struct, frozen=True):
    """Exclusive use of staged bytes, by a lock of the store or by the lease of the row."""

    staged: StagedUpload
    lease: UploadLease | None = None


class UploadClaims(Struct, frozen=True):
    """Claims of this process on upload sessions."""

    keys: UploadKeys
    leases: UploadLeases

    @contextlib.asynccontextmanager
    async def acquire(self, row: UploadRow) -> AsyncIterator[UploadClaim]:
        """Claim the staged bytes, by a lock of the store or a lease of the session's row."""
        staging = self.keys.staging_of(row)
        if staging.supports_locking:
            staged = await staging.claim(row.id)
            try:
                yield UploadClaim(staged)
            finally:
                await staged.release()
            return
        lease, published = None, None
        try:
            async with self.leases.acquire(row.id) as lease:
                if lease is None:
                    raise session_unknown(row.id)
                staged = await staging.claim(row.id, lease.record)
                try:
                    yield UploadClaim(staged, lease)
                finally:
                    await staged.release()
                    lease.over, published = staged.session_ended, staged.published
        finally:
            if lease is not None and lease.lost:
                await self.keys.queue_stale_keys(
                    replace(row, claim_number=lease.record.claim_number), published
                )
