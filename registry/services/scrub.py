"""The scrub: all stored bytes are read again at a set rate, and compared with their digests.

A blob that is found missing or damaged is quarantined: its row says so, and it is answered as
unknown until a push of it heals it. The bytes stay under their key until then. Of a manifest that
cannot be read the collector is told.
"""

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from registry import clock, metrics
from registry.auth.principals import OPERATOR
from registry.metadata import blobs, scrub, tags
from registry.metadata.blobs import BlobRow, BlobState
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.scrub import ScrubRow
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services.blobs import Blobs
from registry.services.hashing import hash_into
from registry.services.pace import Pace
from registry.services.unreadable import Reading
from storage.digest import Digest, Hasher
from storage.errors import ObjectDamagedError, ObjectMissingError, StoreError
from storage.stores import Stores

__all__ = ["Damaged", "Scrub", "ScrubRow", "ScrubSettings"]

logger = logging.getLogger(__name__)

PAGE = 200
"""Blobs of a piece of work at the most."""

PIECE = 2.0
"""Seconds of a piece of work, or as long as one blob takes."""

DAMAGED = tuple(state for state in BlobState if state is not BlobState.LIVE)


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """`interval`: seconds from the begin of a pass to the next. `rate`: bytes a second, 0 for no
    limit.
    """

    enabled: bool
    interval: float
    rate: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A blob that is missing or damaged, and tags that cannot be pulled whole without it."""

    blob: BlobRow
    tags: list[tuple[RepositoryName, str]]


class Scrub:
    """One pass at a time: its place is in the database, and whoever has the lease goes on there."""

    def __init__(
        self, database: Database, stores: Stores, known: Blobs, settings: ScrubSettings
    ) -> None:
        self._db = database
        self._stores = stores
        self._blobs = known
        self._settings = settings
        self.manifests = Reading(database)

    async def find(self) -> ScrubRow | None:
        """The pass that is under way, or else the last; None: there has been none."""
        return await self._db.read(scrub.find)

    async def is_running(self) -> bool:
        """Whether a pass is under way."""
        row = await self.find()
        return row is not None and row.running

    async def is_due(self) -> bool:
        """Whether a pass is under way or its time has come. The first one's is an interval after
        the first repository was made: what is pushed was verified then.
        """
        if not self._settings.enabled:
            return False
        row = await self.find()
        if row is not None and row.running:
            return True
        last = row.started_at if row is not None else await self._db.read(scrub.find_birth)
        return last is not None and last + self._settings.interval * 1_000_000 <= clock.now()

    async def begin(self, *, restart: bool) -> None:
        """Begin a pass, if none is under way; with `restart` in its place."""

        def work(tx: Transaction) -> None:
            row = scrub.find(tx)
            if restart or row is None or not row.running:
                scrub.begin(tx)

        await self._db.write(work, actor=OPERATOR.name)

    async def run(self, rate: int | None = None) -> int:
        """Read some manifests or blobs of the pass under way, or of one that is due; how many, 0
        when it is over. `rate`: in place of that of the settings.

        StoreUnavailableError while a store is away, which says nothing of its blobs.
        """
        # Asked again: another process may have come to the end before this one got the lease.
        if not await self.is_running() and await self.is_due():
            await self.begin(restart=False)
        before = await self.find()
        if before is None or not before.running:
            return 0
        pace = Pace(self._settings.rate if rate is None else rate)
        last, manifests = await self.manifests.check(before.last_manifest or 0, pace, PIECE)
        if manifests:
            await self._advance(before, replace(before, last_manifest=last))
            return manifests
        rows = await self._db.read(lambda tx: blobs.list_after(tx, before.last, PAGE))
        after, until = before, time.monotonic() + PIECE
        for row in rows:
            after = await self._count(after, row, pace)
            if time.monotonic() >= until:
                break
        if not rows:
            after = replace(after, running=False, finished_at=clock.now())
        await self._advance(before, after)
        return after.blobs - before.blobs

    async def _advance(self, before: ScrubRow, after: ScrubRow) -> None:
        await self._db.write(lambda tx: scrub.advance(tx, before, after), actor=OPERATOR.name)

    async def _count(self, so_far: ScrubRow, row: BlobRow, pace: Pace) -> ScrubRow:
        try:
            damaged = await self._check(row, pace)
        except StoreError as error:
            # Of a store that is away all blobs are unreadable. Else it is this one alone, and the
            # others must not wait for it for ever.
            await self._stores.get(row.store).driver.check()
            logger.error("blob %s could not be read: %s", row.digest, error)  # noqa: TRY400 - told
            return replace(
                so_far, last=row.digest, blobs=so_far.blobs + 1, unreadable=so_far.unreadable + 1
            )
        metrics.BLOBS_SCRUBBED.inc()
        metrics.BYTES_SCRUBBED.inc(row.size)
        return replace(
            so_far,
            last=row.digest,
            blobs=so_far.blobs + 1,
            bytes=so_far.bytes + row.size,
            damaged=so_far.damaged + damaged,
        )

    async def _check(self, row: BlobRow, pace: Pace) -> bool:
        """Read the blob and note what was found; whether it is not whole."""
        found = await self._look(row, pace)
        if found is row.state:
            return found is not BlobState.LIVE
        return await self._blobs.note(row, found) and found is not BlobState.LIVE

    async def _look(self, row: BlobRow, pace: Pace) -> BlobState:
        try:
            reader = await self._stores.get(row.store).blobs.open(row.key, row.size)
        except (ObjectMissingError, ObjectDamagedError):
            return BlobState.MISSING
        hasher = Hasher(row.digest.algorithm)
        try:
            await hash_into([hasher], reader, pace)
        except ObjectDamagedError:
            return BlobState.DAMAGED
        return BlobState.LIVE if hasher.digest() == row.digest else BlobState.DAMAGED

    async def measure(self) -> tuple[int, int]:
        """How many blobs there are, and their bytes."""
        return await self._db.read(blobs.measure, patience=LONG)

    async def iter_damaged(self, most: int) -> AsyncIterator[Damaged]:
        """Blobs known to be missing or damaged, each with the first `most` tags that it breaks."""
        async for row in self.iter_damaged_rows():
            yield Damaged(row, await self._list_tags(row.digest, most))

    async def iter_damaged_rows(self) -> AsyncIterator[BlobRow]:
        """Blobs known to be missing or damaged."""
        for state in DAMAGED:
            last: Digest | None = None
            while rows := await self._list(state, last):
                for row in rows:
                    yield row
                last = rows[-1].digest

    async def _list(self, state: BlobState, last: Digest | None) -> list[BlobRow]:
        return await self._db.read(lambda tx: blobs.list_in_state(tx, state, last, PAGE))

    async def _list_tags(self, digest: Digest, most: int) -> list[tuple[RepositoryName, str]]:
        return await self._db.read(lambda tx: tags.list_needing(tx, digest, most), patience=LONG)
