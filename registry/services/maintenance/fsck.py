"""Online consistency check of blob rows against stored objects, in both directions (docs/adr/0001).

Each page of objects is listed before its rows are read. A concurrent push can therefore only appear
as a row without an object, and a stat of that object resolves it. Objects without a row are ignored
while they are young, and checked again in the transaction that deletes them.
"""

import asyncio
import logging
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct, field
from msgspec.structs import replace

from registry import clock
from registry.auth.policy.principals import OPERATOR
from registry.errors import ConflictError
from registry.metadata.content import blobs, key_ownership
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.content.blobs import Blobs
from registry.services.maintenance.hashing import hash_into
from registry.services.throttle import Throttle
from storage.digest import ALGORITHMS, Digest, Hasher
from storage.driver import StoredObject
from storage.errors import ObjectCorruptError, ObjectMissingError, StoreError
from storage.keys import digest_of, is_known_key, session_of
from storage.stores import Store, Stores

logger = logging.getLogger(__name__)

PAGE_SIZE = 500
"""Rows per query."""

AT_ONCE = 16
"""Number of concurrent stat requests."""

MAX_FINDINGS = 1000
"""Maximum number of findings kept for display. All findings are counted."""


class FindingKind(StrEnum):
    """The kind of an inconsistency."""

    # A row whose object does not exist or has a different size.
    MISSING = "missing"
    # An object that no row refers to.
    UNOWNED = "unowned"
    # An object whose key has no format of this registry.
    FOREIGN = "foreign"


class RepairAction(StrEnum):
    """The action taken for a finding."""

    NONE = "none"
    # The blob is reported as unknown, so that the next push heals it.
    QUARANTINED = "quarantined"
    # The object replaced the missing or damaged object of a blob.
    ADOPTED = "adopted"
    # The object is queued for deletion.
    QUEUED_FOR_DELETION = "queued_for_deletion"


class Finding(Struct, frozen=True):
    """An inconsistency. `digest` is that of the damaged or repaired blob."""

    kind: FindingKind
    store: str
    key: str
    size: int
    digest: Digest | None
    action: RepairAction


class Report(Struct):
    """Progress and findings of a run.

    `young` counts objects without a row that are not old enough to be judged.
    """

    objects: int = 0
    rows: int = 0
    young: int = 0
    counts: dict[FindingKind, int] = field(default_factory=lambda: dict.fromkeys(FindingKind, 0))
    open: int = 0
    """Findings that are not repaired yet."""

    findings: list[Finding] = field(default_factory=list)
    """The first findings, at most MAX_FINDINGS."""

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        self.open += finding.action not in {RepairAction.ADOPTED, RepairAction.QUEUED_FOR_DELETION}
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        if finding.action is RepairAction.ADOPTED:
            self._settle(finding)

    def _settle(self, adopted: Finding) -> None:
        """Mark earlier findings of the blob that the object was adopted for as repaired."""
        for index, each in enumerate(self.findings):
            if each.kind is FindingKind.MISSING and each.digest == adopted.digest:
                self.findings[index] = replace(each, action=RepairAction.ADOPTED)
                self.open -= 1


class Fsck:
    """The comparison of the stores with the database. No other service lists a store."""

    def __init__(self, database: Database, stores: Stores, known: Blobs, grace: float) -> None:
        """Create the check. Objects without a row are ignored for `grace` seconds."""
        self._db = database
        self._stores = stores
        self._blobs = known
        self._grace = grace

    async def measure(self) -> int:
        """Return the number of rows to compare."""
        return (await self._db.read(blobs.measure, timeout_s=LONG_TIMEOUT_S))[0]

    async def run(self, report: Report, *, repair: bool, grace: float | None = None) -> None:
        """Compare all stores with the database, and update `report` on the way.

        `repair` quarantines blobs without bytes, adopts objects without a row for damaged blobs,
        and queues other such objects for deletion. `grace` replaces the grace period of the
        settings, in seconds. Raises StoreUnavailableError, and ConflictError if a store does not
        list its objects in order.
        """
        for store in self._stores:
            grace_us = int((self._grace if grace is None else grace) * 1_000_000)
            await _Comparison(self._db, self._blobs, store, report, grace_us, repair).run()


class _Comparison(Struct, frozen=True):
    """The comparison of one store. `grace` is in microseconds."""

    db: Database
    blobs: Blobs
    store: Store
    report: Report
    grace: int
    repair: bool

    async def run(self) -> None:
        last = ""
        async for page in self.store.driver.iter_objects():
            ours = {each.key: each for each in page if is_known_key(each.key)}
            for each in page:
                if each.key not in ours:
                    self._add(FindingKind.FOREIGN, each, None, RepairAction.NONE)
            if ours:
                self._require_order([last, *ours])
                upto = max(ours)
                await self._compare(ours, last, upto)
                last = upto
            self.report.objects += len(page)
        await self._compare({}, last, None)

    def _require_order(self, keys: list[str]) -> None:
        # An unordered list would pair rows with the wrong pages and report all of them as missing.
        if any(one >= other for one, other in pairwise(keys)):
            raise ConflictError(f"store {self.store.name} does not list its objects in order")

    async def _compare(self, page: dict[str, StoredObject], last: str, upto: str | None) -> None:
        """Compare a page of objects with the rows of the same key range."""
        left = dict(page)
        while rows := await self._list_rows(last, upto):
            await self._judge_rows([row for row in rows if not _is_of(left.get(row.key), row)])
            for row in rows:
                left.pop(row.key, None)
            self.report.rows += len(rows)
            last = rows[-1].key
        await self._judge_objects(left)

    async def _list_rows(self, last: str, upto: str | None) -> list[BlobRow]:
        return await self.db.read(
            lambda tx: blobs.list_by_key(tx, self.store.name, last, upto, PAGE_SIZE)
        )

    # --- rows ---------------------------------------------------------------------------------

    async def _judge_rows(self, rows: list[BlobRow]) -> None:
        """Check the object of each row that has no matching object in the listing."""
        for start in range(0, len(rows), AT_ONCE):
            await asyncio.gather(*map(self._judge_row, rows[start : start + AT_ONCE]))

    async def _judge_row(self, row: BlobRow) -> None:
        if await self.blobs.is_stored(row.store, row.key, row.size):
            return
        now = await self.db.read(lambda tx: blobs.find_anywhere(tx, row.digest))
        if now is None or now.key != row.key:
            return  # The blob was deleted, healed or moved since the row was read.
        known = now.state is not BlobState.LIVE
        if not known and self.repair:
            known = await self.blobs.note(now, BlobState.MISSING)
        action = RepairAction.QUARANTINED if known else RepairAction.NONE
        self.report.add(
            Finding(FindingKind.MISSING, row.store, row.key, row.size, row.digest, action)
        )

    # --- objects ------------------------------------------------------------------------------

    async def _judge_objects(self, page: dict[str, StoredObject]) -> None:
        if not page:
            return
        unowned = await self.db.read(
            lambda tx: key_ownership.list_unowned(tx, self.store.name, page)
        )
        for key in sorted(unowned):
            found = page[key]
            if found.written_at > clock.now_us() - self.grace:
                self.report.young += 1
            elif not await self.blobs.is_stored(self.store.name, key, found.size):
                continue  # The object was deleted since it was listed.
            elif self.repair:
                await self._repair(found)
            else:
                self._add(FindingKind.UNOWNED, found, None, RepairAction.NONE)

    async def _repair(self, found: StoredObject) -> None:
        """Adopt the object for a damaged blob, or queue it for deletion.

        An unreadable object is left alone, because it may belong to any blob.
        """
        try:
            row = await self._find_heir(found)
        except StoreError as error:
            await self.store.driver.check()  # raises if the whole store is unavailable
            logger.warning("cannot read %s from %s: %s", found.key, self.store.name, error)
            self._add(FindingKind.UNOWNED, found, None, RepairAction.NONE)
            return
        if row is not None and await self._adopt(found, row):
            self._add(FindingKind.UNOWNED, found, row.digest, RepairAction.ADOPTED)
        elif await self._queue_deletion(found.key):
            self._add(FindingKind.UNOWNED, found, None, RepairAction.QUEUED_FOR_DELETION)

    async def _find_heir(self, found: StoredObject) -> BlobRow | None:
        """Return the missing or damaged blob whose content the object holds."""
        if session_of(found.key) is not None:
            return None  # the remainder of an upload
        named = digest_of(found.key)
        if named is not None and await self._find_broken(named) is None:
            return None  # The blob is intact, so the object need not be read.
        for digest in await self._hash(found):
            row = await self._find_broken(digest)
            if row is not None and row.size == found.size:
                return row
        return None

    async def _find_broken(self, digest: Digest) -> BlobRow | None:
        row = await self.db.read(lambda tx: blobs.find_anywhere(tx, digest))
        if row is None:
            return None
        if row.state is BlobState.LIVE and await self.blobs.is_stored(row.store, row.key, row.size):
            return None
        return row

    async def _hash(self, found: StoredObject) -> list[Digest]:
        """Return the object's digest for each algorithm, or an empty list if it cannot be read."""
        hashers = [Hasher(algorithm) for algorithm in ALGORITHMS]
        try:
            reader = await self.store.blobs.open(found.key, found.size)
            await hash_into(hashers, reader, Throttle(0))
        except (ObjectMissingError, ObjectCorruptError):
            return []
        return [hasher.digest() for hasher in hashers]

    async def _adopt(self, found: StoredObject, row: BlobRow) -> bool:
        """Point the row at the object, unless the row or the object has changed."""

        def work(tx: Transaction) -> bool:
            if not self._hold(tx, found.key):
                return False
            now = blobs.lock(tx, row.digest)
            if now is None or now.key != row.key:
                return False
            blobs.put(tx, BlobRow(row.digest, row.size, self.store.name, found.key, BlobState.LIVE))
            pending_deletions.insert(tx, now.store, now.key, "replaced by fsck")
            return True

        return await self.db.write(work, actor=OPERATOR.name)

    async def _queue_deletion(self, key: str) -> bool:
        def work(tx: Transaction) -> bool:
            held = self._hold(tx, key)
            if held:
                pending_deletions.insert(tx, self.store.name, key, "no owner")
            return held

        return await self.db.write(work, actor=OPERATOR.name)

    def _hold(self, tx: Transaction, key: str) -> bool:
        """Lock the key and return whether it still has no owner.

        Only a concurrent run of this check could give the key an owner.
        """
        tx.lock_name(f"{self.store.name}/{key}")
        return bool(key_ownership.list_unowned(tx, self.store.name, [key]))

    def _add(
        self, kind: FindingKind, found: StoredObject, digest: Digest | None, action: RepairAction
    ) -> None:
        self.report.add(Finding(kind, self.store.name, found.key, found.size, digest, action))


def _is_of(found: StoredObject | None, row: BlobRow) -> bool:
    return found is not None and found.size == row.size
