"""The comparison of rows and objects, both ways, while the registry serves (design D2).

A page of objects is listed first and its rows are asked for afterwards: what a push makes in
between is then a row too many, and a look at the one object shows that all is well. What no row
names is left alone while it is young, and asked about again in the transaction that gives it up.
"""

import asyncio
import logging
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

from registry import clock
from registry.auth.principals import OPERATOR
from registry.errors import ConflictError
from registry.metadata import blobs, doomed, owners
from registry.metadata.blobs import BlobRow, BlobState
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.services.blobs import Blobs
from registry.services.hashing import hash_into
from registry.services.pace import Pace
from storage.digest import ALGORITHMS, Digest, Hasher
from storage.driver import StoredObject
from storage.errors import ObjectDamagedError, ObjectMissingError, StoreError
from storage.keys import find_digest, find_session, is_ours
from storage.stores import Store, Stores

logger = logging.getLogger(__name__)

PAGE = 500
"""Rows read at once."""

AT_ONCE = 16
"""Objects looked at at once."""

MOST = 1000
"""Findings that are kept to be shown; all are counted."""


class Kind(StrEnum):
    """What is wrong."""

    # A row whose object is absent, or has not as many bytes as it must have.
    MISSING = "missing"
    # An object that no row names.
    UNOWNED = "unowned"
    # An object that was not made by this registry: its key is none of ours.
    FOREIGN = "foreign"


class Deed(StrEnum):
    """What was done about it."""

    NOTHING = "nothing"
    # The blob is answered as unknown, so that the next push heals it.
    QUARANTINED = "quarantined"
    # The object has become that of a blob whose own was missing or damaged.
    ADOPTED = "adopted"
    # The object is doomed: a server removes it.
    DOOMED = "doomed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong; `digest` of the blob that is in need or was helped."""

    kind: Kind
    store: str
    key: str
    size: int
    digest: Digest | None
    deed: Deed


@dataclass(slots=True)
class Report:
    """How far a run has come, and what it has found. `young`: objects that no row names yet."""

    objects: int = 0
    rows: int = 0
    young: int = 0
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    open: int = 0
    """Findings that are still to be put right."""

    findings: list[Finding] = field(default_factory=list)
    """The first of them."""

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        self.open += finding.deed not in {Deed.ADOPTED, Deed.DOOMED}
        if len(self.findings) < MOST:
            self.findings.append(finding)
        if finding.deed is Deed.ADOPTED:
            self._settle(finding)

    def _settle(self, adopted: Finding) -> None:
        """What the object was adopted for may have been found before it."""
        for index, each in enumerate(self.findings):
            if each.kind is Kind.MISSING and each.digest == adopted.digest:
                self.findings[index] = replace(each, deed=Deed.ADOPTED)
                self.open -= 1


class Fsck:
    """The only one who lists a store."""

    def __init__(self, database: Database, stores: Stores, known: Blobs, grace: float) -> None:
        """`grace`: seconds for which an object that no row names is left alone."""
        self._db = database
        self._stores = stores
        self._blobs = known
        self._grace = grace

    async def measure(self) -> int:
        """How many rows there are to compare."""
        return (await self._db.read(blobs.measure, patience=LONG))[0]

    async def run(self, report: Report, *, repair: bool, grace: float | None = None) -> None:
        """Compare all; `report` tells meanwhile how far it is. StoreUnavailableError.

        `repair`: quarantine blobs without their bytes, and let objects that no row names become
        theirs, or else remove them. `grace`: in place of that of the settings.
        """
        for store in self._stores:
            grace_us = int((self._grace if grace is None else grace) * 1_000_000)
            await _Comparison(self._db, self._blobs, store, report, grace_us, repair).run()


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Of one store. `grace` in microseconds."""

    db: Database
    blobs: Blobs
    store: Store
    report: Report
    grace: int
    repair: bool

    async def run(self) -> None:
        last = ""
        async for page in self.store.driver.iter_objects():
            ours = {each.key: each for each in page if is_ours(each.key)}
            for each in page:
                if each.key not in ours:
                    self._add(Kind.FOREIGN, each, None, Deed.NOTHING)
            if ours:
                self._require_order([last, *ours])
                upto = max(ours)
                await self._compare(ours, last, upto)
                last = upto
            self.report.objects += len(page)
        await self._compare({}, last, None)

    def _require_order(self, keys: list[str]) -> None:
        # Else rows would be looked for in the wrong pages, and all of them be missing.
        if any(one >= other for one, other in pairwise(keys)):
            raise ConflictError(f"the store {self.store.name} does not list its objects in order")

    async def _compare(self, page: dict[str, StoredObject], last: str, upto: str | None) -> None:
        """Compare a page of objects with the rows of the same range of keys."""
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
            lambda tx: blobs.list_keyed(tx, self.store.name, last, upto, PAGE)
        )

    # --- rows ---------------------------------------------------------------------------------

    async def _judge_rows(self, rows: list[BlobRow]) -> None:
        """Look at the object of each row that had none in the list."""
        for start in range(0, len(rows), AT_ONCE):
            await asyncio.gather(*map(self._judge_row, rows[start : start + AT_ONCE]))

    async def _judge_row(self, row: BlobRow) -> None:
        if await self.blobs.is_stored(row.store, row.key, row.size):
            return
        now = await self.db.read(lambda tx: blobs.find_anywhere(tx, row.digest))
        if now is None or now.key != row.key:
            return  # deleted, healed or moved since it was read
        known = now.state is not BlobState.LIVE
        if not known and self.repair:
            known = await self.blobs.note(now, BlobState.MISSING)
        deed = Deed.QUARANTINED if known else Deed.NOTHING
        self.report.add(Finding(Kind.MISSING, row.store, row.key, row.size, row.digest, deed))

    # --- objects ------------------------------------------------------------------------------

    async def _judge_objects(self, page: dict[str, StoredObject]) -> None:
        if not page:
            return
        unowned = await self.db.read(lambda tx: owners.list_unowned(tx, self.store.name, page))
        for key in sorted(unowned):
            found = page[key]
            if found.written_at > clock.now() - self.grace:
                self.report.young += 1
            elif not await self.blobs.is_stored(self.store.name, key, found.size):
                continue  # removed since it was listed, and its row with it
            elif self.repair:
                await self._repair(found)
            else:
                self._add(Kind.UNOWNED, found, None, Deed.NOTHING)

    async def _repair(self, found: StoredObject) -> None:
        """Let the object become that of a blob in need, or else doom it; one that cannot be read
        may be anybody's.
        """
        try:
            row = await self._find_heir(found)
        except StoreError as error:
            await self.store.driver.check()  # of a store that is away all are unreadable
            logger.warning("%s of %s could not be read: %s", found.key, self.store.name, error)
            self._add(Kind.UNOWNED, found, None, Deed.NOTHING)
            return
        if row is not None and await self._adopt(found, row):
            self._add(Kind.UNOWNED, found, row.digest, Deed.ADOPTED)
        elif await self._doom(found.key):
            self._add(Kind.UNOWNED, found, None, Deed.DOOMED)

    async def _find_heir(self, found: StoredObject) -> BlobRow | None:
        """A blob whose own bytes are missing or damaged, and that these are the bytes of."""
        if find_session(found.key) is not None:
            return None  # the end of some upload
        named = find_digest(found.key)
        if named is not None and await self._find_broken(named) is None:
            return None  # there is nobody to read it for
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
        """The object's digest by each algorithm; none where it cannot be read."""
        hashers = [Hasher(algorithm) for algorithm in ALGORITHMS]
        try:
            reader = await self.store.blobs.open(found.key, found.size)
            await hash_into(hashers, reader, Pace(0))
        except (ObjectMissingError, ObjectDamagedError):
            return []
        return [hasher.digest() for hasher in hashers]

    async def _adopt(self, found: StoredObject, row: BlobRow) -> bool:
        """Let the row name the object, unless one of them has moved on."""

        def work(tx: Transaction) -> bool:
            if not self._hold(tx, found.key):
                return False
            now = blobs.lock(tx, row.digest)
            if now is None or now.key != row.key:
                return False
            blobs.put(tx, BlobRow(row.digest, row.size, self.store.name, found.key, BlobState.LIVE))
            doomed.insert(tx, now.store, now.key, "replaced by fsck")
            return True

        return await self.db.write(work, actor=OPERATOR.name)

    async def _doom(self, key: str) -> bool:
        def work(tx: Transaction) -> bool:
            held = self._hold(tx, key)
            if held:
                doomed.insert(tx, self.store.name, key, "without an owner")
            return held

        return await self.db.write(work, actor=OPERATOR.name)

    def _hold(self, tx: Transaction, key: str) -> bool:
        """Whether the key has no owner still. None but another run of this could give it one."""
        tx.lock_name(f"{self.store.name}/{key}")
        return bool(owners.list_unowned(tx, self.store.name, [key]))

    def _add(self, kind: Kind, found: StoredObject, digest: Digest | None, deed: Deed) -> None:
        self.report.add(Finding(kind, self.store.name, found.key, found.size, digest, deed))


def _is_of(found: StoredObject | None, row: BlobRow) -> bool:
    return found is not None and found.size == row.size
