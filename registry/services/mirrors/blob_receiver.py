"""Reception of blobs from upstreams: an upload session owns the bytes until they are a blob."""

import contextlib
from collections.abc import AsyncIterator

from registry.auth.policy.principals import MIRROR
from registry.errors import (
    DigestMismatchError,
    RegistryError,
    UploadBusyError,
    UploadUnknownError,
    UpstreamDigestError,
)
from registry.oci.names import RepositoryName
from registry.services.content.publication import Publication
from registry.services.content.upload_chunks import Chunk
from registry.services.content.upload_sessions import OpenSession, UploadSessions
from registry.services.quotas.quotas import Quotas
from storage.digest import Digest
from storage.driver import StagedReader
from storage.errors import StoreError
from storage.stores import Stores


class Receipt:
    """A blob that is being received. `session` is the upload session that owns its bytes."""

    def __init__(
        self,
        opened: OpenSession,
        digest: Digest,
        sessions: UploadSessions,
        publication: Publication,
        *,
        limited: bool,
    ) -> None:
        self.session = opened.row.id
        self._opened = opened
        self._digest = digest
        self._sessions = sessions
        self._publication = publication
        self._limited = limited

    @property
    def offset(self) -> int:
        """Number of bytes that are staged."""
        return self._opened.staged.offset

    async def append(self, data: bytes) -> None:
        """Stage bytes. Raises StoreError."""
        await self._opened.staged.append(_one(data))

    async def complete(self) -> None:
        """Verify the bytes, publish them, and link the blob to the repository.

        Raises UpstreamDigestError, QuotaExceededError and StoreError, and UploadUnknownError if
        the repository was deleted.
        """
        limited, staged = self._limited, self._opened.staged
        await self._sessions.receive_last(
            self._opened, Chunk(_one(b""), announced=0), limited=limited
        )
        row, key = await self._publication.publish(
            self._opened.row, staged, self._digest, limited=limited
        )
        await self._publication.link(row, self._digest, key, limited=limited)
        staged.session_ended = True


class BlobReceiver:
    """Receives blobs of upstreams into repositories.

    The sessions belong to an internal principal, and are not limited in number. Quotas apply.
    """

    def __init__(
        self, stores: Stores, sessions: UploadSessions, publication: Publication, quotas: Quotas
    ) -> None:
        self._stores = stores
        self._sessions = sessions
        self._publication = publication
        self._quotas = quotas

    @contextlib.asynccontextmanager
    async def receive(
        self, name: RepositoryName, digest: Digest, size: int
    ) -> AsyncIterator[Receipt]:
        """Start to receive a blob of `size` bytes. After an error in the block, nothing is left.

        Raises QuotaExceededError if the blob does not fit.
        """
        limited = await self._quotas.hold_for(name)
        room = await self._quotas.find_room(name) if limited else None
        if room is not None:
            room.require(size)
        session = await self._sessions.begin(name, MIRROR, digest.algorithm)
        try:
            async with self._sessions.open(name, MIRROR, session.id) as opened:
                yield Receipt(opened, digest, self._sessions, self._publication, limited=limited)
        except BaseException as error:
            # If this fails, the expiry job ends the session.
            with contextlib.suppress(RegistryError, StoreError):
                await self._sessions.cancel(name, MIRROR, session.id)
            if isinstance(error, DigestMismatchError):
                raise _mismatch(digest) from error
            raise

    async def open_reader(self, session: str) -> StagedReader | None:
        """Open the bytes of a session while they grow; None if they cannot be read."""
        return await self._stores.current.staging.open_reader(session)

    async def drop_if_dead(self, name: RepositoryName, session: str) -> bool:
        """End a session unless a living process uses it. Return whether it has ended.

        The kernel releases the lock on the staged file of a dead process. A lease in a row only
        expires, so nothing is known about a store without locks.
        """
        if not self._stores.current.staging.supports_locking:
            return False
        try:
            with contextlib.suppress(UploadUnknownError):  # it has ended already
                await self._sessions.cancel(name, MIRROR, session)
        except UploadBusyError:
            return False
        return True


def require_digest(expected: Digest, actual: Digest) -> None:
    """Raise UpstreamDigestError if the bytes of an upstream are not the requested blob."""
    if actual != expected:
        raise _mismatch(expected)


def _mismatch(digest: Digest) -> UpstreamDigestError:
    return UpstreamDigestError(f"the upstream sent other bytes than those of {digest}")


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
