"""Blobs of a repository: looked at, read, mounted, unlinked."""

import logging
from collections.abc import Callable, Collection

from registry import metrics
from registry.auth.principals import OPERATOR, Principal
from registry.errors import BlobInUseError, BlobUnknownError
from registry.metadata import blobs, repositories
from registry.metadata.blobs import BlobRow, BlobState
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services.gc_rules import GcRules
from registry.services.quotas import require_room
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import ObjectDamagedError, ObjectMissingError
from storage.stores import Stores

__all__ = ["BlobRow", "Blobs"]

logger = logging.getLogger(__name__)

_SOURCES = 100


def _unknown(digest: Digest) -> BlobUnknownError:
    return BlobUnknownError(f"the repository has no blob {digest}", {"digest": str(digest)})


class Blobs:
    """A blob is served only after its bytes were looked at: the row alone proves nothing."""

    def __init__(self, database: Database, stores: Stores, rules: GcRules) -> None:
        self._db = database
        self._stores = stores
        self._rules = rules

    async def stat(self, name: RepositoryName, digest: Digest) -> BlobRow:
        """The blob, if linked here and whole; else BlobUnknownError. It stays for a grace at least:
        whoever is told that a blob is here does not push it.
        """
        found = await self._db.read(lambda tx: blobs.find_promised(tx, name, digest))
        if found is None:
            raise _unknown(digest)
        row, stale = found
        if not await self.is_whole(row):
            raise _unknown(digest)
        if stale and not await self._db.write(
            lambda tx: blobs.touch(tx, name, digest, self._rules.ahead), actor=OPERATOR.name
        ):
            raise _unknown(digest)
        return row

    async def open(self, row: BlobRow, part: tuple[int, int] | None = None) -> Reader:
        """The blob, opened for reading; errors as `stat`. The caller closes the reader.

        `part`: first byte and length of what will be read, all by default.
        """
        try:
            reader = await self._stores.get(row.store).blobs.open(row.key, row.size, part)
        except (ObjectMissingError, ObjectDamagedError) as error:
            moved = await self._db.read(lambda tx: blobs.find_anywhere(tx, row.digest))
            if moved is not None and moved.key != row.key:
                return await self.open(moved, part)  # since the row was read
            if moved is not None:  # else it was collected since
                await self.note(row, BlobState.MISSING)
            raise _unknown(row.digest) from error
        if row.state is BlobState.MISSING:
            await self.note(row, BlobState.LIVE)
        return reader

    async def find_link(self, row: BlobRow) -> str | None:
        """A URL where the client can read the blob itself, if the store is set up for that. Whoever
        has it needs no other right: it goes to nobody else, and into no log.
        """
        if row.state is not BlobState.LIVE:
            return None  # reading it here sets the row right
        return await self._stores.get(row.store).blobs.find_link(row.key)

    async def get(self, name: RepositoryName, digest: Digest) -> BlobRow:
        """The blob, if linked here, as its row has it; nobody has looked at its bytes."""
        row = await self._db.read(lambda tx: blobs.find(tx, name, digest))
        if row is None or row.state is BlobState.DAMAGED:
            raise _unknown(digest)
        return row

    async def is_whole(self, row: BlobRow) -> bool:
        """Whether the blob's bytes are there in full length; the row is set right if it erred.

        Of a store that takes long to tell the row is believed: reading it sets it right.
        """
        if row.state is BlobState.DAMAGED:
            return False
        if not self._stores.get(row.store).blobs.cheap_stat:
            return row.state is BlobState.LIVE
        whole = await self.is_stored(row.store, row.key, row.size)
        await self.note(row, BlobState.LIVE if whole else BlobState.MISSING)
        return whole

    async def is_stored(self, store: str, key: str, size: int) -> bool:
        """Whether there are `size` bytes under `key` of the store called `store`."""
        try:
            await self._stores.get(store).blobs.check(key, size)
        except (ObjectMissingError, ObjectDamagedError):
            return False
        return True

    async def note_damage(self, row: BlobRow) -> None:
        """Remember that reading the blob failed half-way. The next push of it heals it."""
        await self.note(row, BlobState.DAMAGED)

    async def note(self, row: BlobRow, state: BlobState) -> bool:
        """Remember what was found of the blob's bytes; False if that is known, or if its row has
        moved on since it was read: what was found then says nothing of the blob as it is.
        """
        if row.state is state:
            return False
        if not await self._db.write(
            lambda tx: blobs.set_state(tx, row, state), actor=OPERATOR.name
        ):
            return False
        if state is BlobState.LIVE:
            logger.warning("blob %s is whole again", row.digest)
        else:
            metrics.BLOBS_FOUND_DAMAGED.inc()
            logger.error("blob %s is %s; a push of it heals it", row.digest, state.value)
        return True

    async def list_stores(self) -> list[str]:
        """The names of the stores that hold blobs."""
        return await self._db.read(blobs.list_stores)

    async def count_damaged(self) -> int:
        """Blobs whose bytes are known to be missing or damaged."""
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
        """Link a blob of `source`, or of a repository the caller may pull, here; whether it was.

        Without a source, those `among` are looked at, which a token names, or else the first
        hundred. False says nothing of why: denied, no such repository and no such blob look the
        same. QuotaExceededError.
        """
        if source is None:
            source = await self._find_source(digest, may_pull, among)
        if source is None or not may_pull(source):
            return False
        origin = source
        row = await self._db.read(lambda tx: blobs.find(tx, origin, digest))
        if row is None or not await self.is_whole(row):
            return False

        def work(tx: Transaction) -> bool:
            target = repositories.ensure(tx, name)
            kept = blobs.find_anywhere(tx, digest, keep=True)
            if kept is None or kept.key != row.key or blobs.find(tx, origin, digest) is None:
                raise _unknown(digest)  # gone since we looked; nothing is left of `ensure`
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
        """One query, however many repositories have the blob: how long a search takes must not
        tell of those that the caller may not see.
        """
        found = await self._db.read(lambda tx: blobs.list_repositories(tx, digest, _SOURCES, among))
        return next((name for name in found if may_pull(name)), None)

    async def unlink(self, name: RepositoryName, digest: Digest, principal: Principal) -> None:
        """Take the blob out of this repository; BlobInUseError while a manifest here uses it."""

        def work(tx: Transaction) -> None:
            repository = repositories.find(tx, name, lock=True)
            if repository is None:
                raise _unknown(digest)
            users = blobs.list_users(tx, repository, digest)
            if users:
                raise BlobInUseError(
                    "manifests of the repository use the blob; delete them first",
                    {"manifests": [str(user) for user in users]},
                )
            if not blobs.unlink(tx, repository, {digest: None}):
                raise _unknown(digest)
            repositories.remove_if_empty(tx, repository)

        await self._db.write(work, actor=principal.name, frees=True)
