"""The scrub: a rate-limited check of all stored bytes against their digests.

A missing or damaged blob is quarantined: its row is marked, and the blob is reported as unknown
until a push heals it. Its bytes stay in the store until then. An unreadable manifest is recorded
for the garbage collector.
"""

import logging
import time
from collections.abc import AsyncIterator

from msgspec import Struct
from msgspec.structs import replace

from registry import clock, metrics
from registry.auth.policy.principals import OPERATOR
from registry.metadata.content import blobs, tags
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import scrub
from registry.metadata.maintenance.scrub import ScrubRow
from registry.oci.names import RepositoryName
from registry.services.content.blobs import Blobs
from registry.services.gc.manifest_scrub import ManifestScrub
from registry.services.maintenance.hashing import hash_into
from registry.services.maintenance.settings import ScrubSettings
from registry.services.throttle import Throttle
from storage.digest import Digest, Hasher
from storage.errors import ObjectCorruptError, ObjectMissingError, StoreError
from storage.stores import Stores

__all__ = ["Damaged", "Scrub", "ScrubRow"]

logger = logging.getLogger(__name__)

PAGE_SIZE = 200
"""Maximum number of blobs per call."""

SLICE_S = 2.0
"""Seconds per call. A blob in progress is completed."""

DAMAGED = tuple(state for state in BlobState if state is not BlobState.LIVE)


class Damaged(Struct, frozen=True):
    """A missing or damaged blob, and the tags that cannot be pulled completely without it."""

    blob: BlobRow
    tags: list[tuple[RepositoryName, str]]


class Scrub:
    """The scrub. There is at most one pass at a time.

    The position is stored in the database. The process that holds the lease continues there.
    """

    def __init__(
        self, database: Database, stores: Stores, known: Blobs, settings: ScrubSettings
    ) -> None:
        self._db = database
        self._stores = stores
        self._blobs = known
        self._settings = settings
        self.manifests = ManifestScrub(database)

    async def find(self) -> ScrubRow | None:
        """Return the pass in progress or the last one, or None if there has been none."""
        return await self._db.read(scrub.find)

    async def is_running(self) -> bool:
        """Return whether a pass is in progress."""
        row = await self.find()
        return row is not None and row.is_running

    async def is_due(self) -> bool:
        """Return whether a pass is in progress or due.

        The first pass is due one interval after the first repository was created, because pushed
        content is verified on push.
        """
        if not self._settings.enabled:
            return False
        row = await self.find()
        if row is not None and row.is_running:
            return True
        last = row.started_at if row is not None else await self._db.read(scrub.find_birth)
        return last is not None and last + self._settings.interval * 1_000_000 <= clock.now_us()

    async def begin(self, *, restart: bool) -> None:
        """Start a pass unless one is in progress. With `restart`, replace the one in progress."""

        def work(tx: Transaction) -> None:
            row = scrub.find(tx)
            if restart or row is None or not row.is_running:
                scrub.begin(tx)

        await self._db.write(work, actor=OPERATOR.name)

    async def run(self, rate: int | None = None) -> int:
        """Check a batch of manifests or blobs. Return their number, 0 at the end of the pass.

        Starts a pass if one is due. `rate` replaces the rate of the settings. Raises
        StoreUnavailableError if a store is unavailable, which is no evidence about its blobs.
        """
        # Another process may have completed the pass before this one got the lease.
        if not await self.is_running() and await self.is_due():
            await self.begin(restart=False)
        before = await self.find()
        if before is None or not before.is_running:
            return 0
        pace = Throttle(self._settings.limit_rate if rate is None else rate)
        last, manifests = await self.manifests.check(before.last_manifest_id or 0, pace, SLICE_S)
        if manifests:
            await self._advance(before, replace(before, last_manifest_id=last))
            return manifests
        rows = await self._db.read(lambda tx: blobs.list_after(tx, before.last_blob, PAGE_SIZE))
        after, until = before, time.monotonic() + SLICE_S
        for row in rows:
            after = await self._count(after, row, pace)
            if time.monotonic() >= until:
                break
        if not rows:
            after = replace(after, is_running=False, finished_at=clock.now_us())
        await self._advance(before, after)
        return after.blobs - before.blobs

    async def _advance(self, before: ScrubRow, after: ScrubRow) -> None:
        await self._db.write(lambda tx: scrub.advance(tx, before, after), actor=OPERATOR.name)

    async def _count(self, so_far: ScrubRow, row: BlobRow, pace: Throttle) -> ScrubRow:
        try:
            damaged = await self._check(row, pace)
        except StoreError as error:
            # Raise if the whole store is unavailable. Otherwise only this blob is affected, and it
            # must not block the others.
            await self._stores.get(row.store).driver.check()
            logger.error("cannot read blob %s: %s", row.digest, error)  # noqa: TRY400 - told
            return replace(
                so_far,
                last_blob=row.digest,
                blobs=so_far.blobs + 1,
                unreadable=so_far.unreadable + 1,
            )
        metrics.BLOBS_SCRUBBED.inc()
        metrics.BYTES_SCRUBBED.inc(row.size)
        return replace(
            so_far,
            last_blob=row.digest,
            blobs=so_far.blobs + 1,
            bytes=so_far.bytes + row.size,
            damaged=so_far.damaged + damaged,
        )

    async def _check(self, row: BlobRow, pace: Throttle) -> bool:
        """Read the blob and record its state. Return whether it is missing or damaged."""
        found = await self._look(row, pace)
        if found is row.state:
            return found is not BlobState.LIVE
        return await self._blobs.note(row, found) and found is not BlobState.LIVE

    async def _look(self, row: BlobRow, pace: Throttle) -> BlobState:
        try:
            reader = await self._stores.get(row.store).blobs.open(row.key, row.size)
        except (ObjectMissingError, ObjectCorruptError):
            return BlobState.MISSING
        hasher = Hasher(row.digest.algorithm)
        try:
            await hash_into([hasher], reader, pace)
        except ObjectCorruptError:
            return BlobState.DAMAGED
        return BlobState.LIVE if hasher.digest() == row.digest else BlobState.DAMAGED

    async def measure(self) -> tuple[int, int]:
        """Return the number of blobs and their total size in bytes."""
        return await self._db.read(blobs.measure, timeout_s=LONG_TIMEOUT_S)

    async def iter_damaged(self, most: int) -> AsyncIterator[Damaged]:
        """Yield the missing or damaged blobs, each with the first `most` affected tags."""
        async for row in self.iter_damaged_rows():
            yield Damaged(row, await self._list_tags(row.digest, most))

    async def iter_damaged_rows(self) -> AsyncIterator[BlobRow]:
        """Yield the rows of missing or damaged blobs."""
        for state in DAMAGED:
            last: Digest | None = None
            while rows := await self._list(state, last):
                for row in rows:
                    yield row
                last = rows[-1].digest

    async def _list(self, state: BlobState, last: Digest | None) -> list[BlobRow]:
        return await self._db.read(lambda tx: blobs.list_in_state(tx, state, last, PAGE_SIZE))

    async def _list_tags(self, digest: Digest, most: int) -> list[tuple[RepositoryName, str]]:
        return await self._db.read(
            lambda tx: tags.list_tags_needing_blob(tx, digest, most), timeout_s=LONG_TIMEOUT_S
        )
