"""Blobs of a repository: stat, read, mount, unlink."""

import logging
from collections.abc import Callable, Collection

from registry import metrics
from registry.auth.policy.principals import OPERATOR, Principal
from registry.errors import BlobInUseError, BlobUnknownError
from registry.metadata.content import blobs, repositories
from registry.metadata.content.blobs import BlobRow, BlobState, PromisedBlob
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services.gc.settings import GcSettings
from registry.services.quotas.quotas import require_room
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import ObjectCorruptError, ObjectMissingError
from storage.stores import Stores

__all__ = ["SEEN_S", "BlobRow", "Blobs"]

logger = logging.getLogger(__name__)

_SOURCES = 100

SEEN_S = 2.0
"""Seconds for which a response may be repeated without another look at the bytes of the blob."""


def _unknown(digest: Digest) -> BlobUnknownError:
    return BlobUnknownError(f"no blob {digest} in this repository", {"digest": str(digest)})


class Blobs:
    """Access to blobs. A row alone does not prove that the bytes exist, so they are checked."""

    def __init__(self, database: Database, stores: Stores, rules: GcSettings) -> None:
        self._db = database
        self._stores = stores
        self._rules = rules

    async def stat(self, name: RepositoryName, digest: Digest) -> PromisedBlob:
        """Return the blob if it is linked to the repository and complete.

        The blob is kept for at least one grace period afterwards, because a client that learns that
        the blob exists does not push it. The same holds for later responses that confirm the blob
        while nothing has changed in the repository, until the time in the result. Raises
        BlobUnknownError.
        """
        found = await self._db.read(lambda tx: blobs.find_promised(tx, name, digest), single=True)
        if found is None:
            raise _unknown(digest)
        if not await self.is_whole(found.row):
            raise _unknown(digest)
        if not found.until and not await self._db.write(
            lambda tx: blobs.touch(tx, name, digest, self._rules.touch_interval),
            actor=OPERATOR.name,
        ):
            raise _unknown(digest)
        return found

    async def open(self, row: BlobRow, part: tuple[int, int] | None = None) -> Reader:
        """Open the blob for reading. The caller closes the reader.

        `part` is the first byte and the length of the range to be read. The default is the whole
        blob. Raises BlobUnknownError as `stat`.
        """
        try:
            reader = await self._stores.get(row.store).blobs.open(row.key, row.size, part)
        except (ObjectMissingError, ObjectCorruptError) as error:
            moved = await self._db.read(lambda tx: blobs.find_anywhere(tx, row.digest))
            if moved is not None and moved.key != row.key:
                return await self.open(moved, part)  # The blob has moved since the row was read.
            if moved is not None:  # otherwise it has been collected
                await self.note(row, BlobState.MISSING)
            raise _unknown(row.digest) from error
        if row.state is BlobState.MISSING:
            await self.note(row, BlobState.LIVE)
        return reader

    async def presigned_url(self, row: BlobRow) -> str | None:
        """Return a presigned URL for the blob, or None if the store is not set up for redirects.

        The URL is a bearer secret: it is sent only to the requesting client and must not be logged.
        """
        if row.state is not BlobState.LIVE:
            return None  # Reading through the registry corrects the row.
        return await self._stores.get(row.store).blobs.presigned_url(row.key)

    async def get(self, name: RepositoryName, digest: Digest) -> BlobRow:
        """Return the row of the blob if it is linked to the repository. The bytes are not checked.

        Raises BlobUnknownError, also for a blob that is marked as damaged.
        """
        row = await self._db.read(lambda tx: blobs.find(tx, name, digest), single=True)
        if row is None or row.state is BlobState.DAMAGED:
            raise _unknown(digest)
        return row

    async def is_whole(self, row: BlobRow) -> bool:
        """Return whether the bytes exist with the expected size, and correct the state of the row.

        If the store has no cheap stat, the state of the row is returned. A read corrects it later.
        """
        if row.state is BlobState.DAMAGED:
            return False
        if not self._stores.get(row.store).blobs.stat_is_cheap:
            return row.state is BlobState.LIVE
        whole = await self.is_stored(row.store, row.key, row.size)
        await self.note(row, BlobState.LIVE if whole else BlobState.MISSING)
        return whole

    async def is_stored(self, store: str, key: str, size: int) -> bool:
        """Return whether an object of `size` bytes exists under `key` in the named store."""
        try:
            await self._stores.get(store).blobs.check(key, size)
        except (ObjectMissingError, ObjectCorruptError):
            return False
        return True

    async def note_damage(self, row: BlobRow) -> None:
        """Mark the blob as damaged after a failed read. The next push of the blob heals it."""
        await self.note(row, BlobState.DAMAGED)

    async def note(self, row: BlobRow, state: BlobState) -> bool:
        """Record the state of the blob's bytes. Return whether the row changed.

        Returns False if the state is already recorded, or if the row has changed since it was read:
        the observation then does not apply to the current bytes.
        """
        if row.state is state:
            return False
        if not await self._db.write(
            lambda tx: blobs.set_state(tx, row, state), actor=OPERATOR.name
        ):
            return False
        if state is BlobState.LIVE:
            logger.warning("blob %s is intact again", row.digest)
        else:
            metrics.BLOBS_FOUND_DAMAGED.inc()
            logger.error("blob %s is %s; push it again to repair it", row.digest, state.value)
        return True

    async def list_stores(self) -> list[str]:
        """Return the names of the stores that hold blobs."""
        return await self._db.read(blobs.list_stores)

    async def count_damaged(self) -> int:
        """Return the number of blobs that are marked as missing or damaged."""
        return await self._db.read(blobs.count_not_live)

    async def mount(
        self,
        name: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
        principal: Principal,
        may_pull: Callable[[RepositoryName], bool],
        *,
        among: Collection[RepositoryName] | None = None,
    ) -> bool:
        """Link a blob of another repository to this one. Return whether it was linked.

        The caller needs pull permission for the source repository. Without `source`, the
        repositories in `among` are searched, which the token names. Without `among`, the first 100
        repositories that link the blob are searched. The result does not reveal whether access was
        denied or the repository or blob does not exist. Raises QuotaExceededError.
        """
        if source is None:
            source = await self._find_source(digest, may_pull, among)
        if source is None or not may_pull(source):
            return False
        origin = source
        row = await self._db.read(lambda tx: blobs.find(tx, origin, digest), single=True)
        if row is None or not await self.is_whole(row):
            return False

        def work(tx: Transaction) -> bool:
            target = repositories.ensure(tx, name)
            kept = blobs.find_anywhere(tx, digest, keep=True)
            if kept is None or kept.key != row.key or blobs.find(tx, origin, digest) is None:
                # The blob was deleted since the check. The rollback also removes a new repository.
                raise _unknown(digest)
            blobs.link(tx, target, digest)
            require_room(tx, name)
            return True

        try:
            return await self._db.write(work, actor=principal.name)
        except BlobUnknownError:
            return False

    async def _find_source(
        self,
        digest: Digest,
        may_pull: Callable[[RepositoryName], bool],
        among: Collection[RepositoryName] | None,
    ) -> RepositoryName | None:
        """Return a repository that links the blob and that the caller may pull.

        One query serves any number of repositories, so that the response time does not reveal
        repositories that the caller may not see.
        """
        found = await self._db.read(lambda tx: blobs.list_repositories(tx, digest, _SOURCES, among))
        return next((name for name in found if may_pull(name)), None)

    async def unlink(self, name: RepositoryName, digest: Digest, principal: Principal) -> None:
        """Unlink the blob from the repository.

        Raises BlobUnknownError, and BlobInUseError while a manifest of the repository uses the
        blob.
        """

        def work(tx: Transaction) -> None:
            repository = repositories.find(tx, name, lock=True)
            if repository is None:
                raise _unknown(digest)
            users = blobs.list_manifests_using(tx, repository, digest)
            if users:
                raise BlobInUseError(
                    "manifests of the repository use this blob; delete them first",
                    {"manifests": [str(user) for user in users]},
                )
            if not blobs.unlink(tx, repository, {digest: None}):
                raise _unknown(digest)
            repositories.remove_if_empty(tx, repository)

        await self._db.write(work, actor=principal.name, may_use_reserve=True)
