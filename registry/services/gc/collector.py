"""Online garbage collection: deletes unreferenced content after a grace period, in small batches.

Transactions that drop a reference queue the content as a candidate. The amount of work therefore
depends on the number of changes, not on the size of the registry.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from registry import clock, metrics
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.gc import queue, state, unreadable_manifests
from registry.metadata.gc.queue import SECOND, Candidate
from registry.oci.names import RepositoryName
from registry.services.gc import expiry
from registry.services.gc.batch import GROUP, Batch, BatchCollector, BatchResult, GcReport, group
from registry.services.gc.clock_guard import ClockGuard
from registry.services.gc.settings import GcSettings
from registry.services.throttle import Throttle
from storage.digest import Digest

logger = logging.getLogger(__name__)

ACTOR = "gc"

LISTED = 2000
"""Candidates per query. Large enough for full batches when many repositories have candidates."""

CORRECTED = 200
"""Candidates corrected per transaction."""

SHOWN = 20
"""Maximum number of unreadable manifests in a status."""


class Status(Struct, frozen=True):
    """State of the collector. Times are in microseconds by the database's clock.

    - `queued`: candidates in the queue, by kind.
    - `due`: candidates whose grace period is over.
    - `in_grace`: candidates whose grace period is not over. The first ends at `next_due_at`.
    - `kept_untagged`: untagged manifests that the rules keep.
    - `last_clock_check_at`: time of the last comparison of the clocks.
    - `paused_until`: end of a pause, because the clock jumped by `clock_jump_seconds`.
    - `in_window`: the time of day is within the collection window.
    - `unreadable`: the first manifests that cannot be read. Nothing is collected in their
      repositories.
    """

    queued: dict[str, int]
    due: int
    in_grace: int
    next_due_at: int | None
    kept_untagged: int
    last_clock_check_at: int | None
    paused_until: int | None
    clock_jump_seconds: float
    in_window: bool
    unreadable: list[tuple[RepositoryName, Digest]]


class Collector:
    """The garbage collector."""

    def __init__(self, database: Database, rules: GcSettings) -> None:
        self._db = database
        self._rules = rules
        self._grace = int(rules.grace_period * SECOND)
        self._ages = ClockGuard(database, rules.grace_period)
        self._objects = Throttle(rules.limit_deletions)
        self._bytes = Throttle(rules.limit_rate)

    async def is_due(self) -> bool:
        """Return whether `run` has work to do."""

        def work(tx: Transaction) -> bool:
            row, now = state.find(tx), state.read_clock(tx)
            if self._ages.is_late(row, now):
                return True
            return self._is_open() and (
                self._is_odd(tx)
                or bool(queue.list_due(tx, now - self._grace, 1))
                or expiry.any_expired(tx, now - self._grace)
            )

        return await self._db.read(work)

    async def run(self) -> int:
        """Do a bounded amount of work inside the collection window. Return 0 if no work is left."""
        if not self._is_open():
            await self._ages.cutoff()
            return 0
        tally = GcReport()
        more = await self.collect(tally, self._is_open)
        return tally.examined or int(more and self._is_open())

    async def collect(self, tally: GcReport, may_go_on: Callable[[], bool] = lambda: True) -> bool:
        """Do a bounded amount of work and add the results to `tally`.

        Returns whether more work may be left. Stops early when `may_go_on` returns False.
        """
        if await self._db.read(self._is_odd):
            await self._db.write(self._set_right, actor=ACTOR, may_use_reserve=True)
        until = await self._ages.cutoff()
        if until is None:
            return False
        before = tally.examined
        if await self._db.read(lambda tx: expiry.any_expired(tx, until)):
            tally.examined += await self._db.write(
                lambda tx: expiry.delete_expired(tx, until), actor=ACTOR, may_use_reserve=True
            )
        collection = BatchCollector(self._rules.untagged_rules, until)
        found = await self._db.read(lambda tx: queue.list_due(tx, until, LISTED))
        for some in group(found, self._at_once):
            if not await self._wait(may_go_on):
                return True
            tally.add(await self._collect(collection, some))
        return tally.examined > before

    async def plan(self) -> GcReport:
        """Return what a run would delete now.

        Content that loses its last reference in that run gets its own grace period and is not
        included.
        """
        until = await self._db.read(state.read_clock) - self._grace
        collection = BatchCollector(self._rules.untagged_rules, until)
        tally = GcReport()
        last: Candidate | None = None
        while found := await self._db.read(
            partial(queue.list_due, until=until, n=LISTED, last=last)
        ):
            # One read per group, because each read has a deadline.
            for some in group(found):
                tally.add(await self._db.read(partial(collection.preview, some=some)))
            last = found[-1]
        return tally

    async def count_queued(self) -> dict[str, int]:
        """Return the number of candidates by kind."""
        return await self._db.read(_count)

    async def get_status(self) -> Status:
        def work(tx: Transaction) -> Status:
            row, until = state.find(tx), state.read_clock(tx) - self._grace
            in_grace, first = queue.find_next(tx, until)
            return Status(
                queued=_count(tx),
                due=queue.count_due(tx, until),
                in_grace=in_grace,
                next_due_at=None if first is None else first + self._grace,
                kept_untagged=queue.count_parked(tx),
                last_clock_check_at=row.clock_checked_at or None,
                paused_until=self._ages.find_pause(tx),
                clock_jump_seconds=row.clock_jump / SECOND,
                in_window=self._is_open(),
                unreadable=unreadable_manifests.list_known(tx, SHOWN),
            )

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)

    async def _collect(self, collection: BatchCollector, some: Batch) -> BatchResult:
        found: set[Digest] = set()
        if some.kind is CandidateKind.MANIFEST:
            found = await self._db.read(lambda tx: collection.list_unreadable(tx, some))
        for digest in sorted(found):
            logger.error(
                "manifest %s cannot be read: nothing in its repository is collected", digest
            )
        begun = 0.0

        def work(tx: Transaction) -> BatchResult:
            nonlocal begun
            begun = time.monotonic()
            return collection.collect(tx, some, found)

        done = await self._db.write(work, actor=ACTOR, may_use_reserve=True)
        done.lock_seconds = time.monotonic() - begun
        metrics.GC_COLLECTED.labels("manifest").inc(done.manifests)
        metrics.GC_COLLECTED.labels("blob").inc(done.blobs)
        metrics.GC_COLLECTED_BYTES.inc(done.freed)
        self._bytes.charge(done.freed)
        self._objects.charge(done.manifests + done.blobs)
        return done

    def _at_once(self, kind: CandidateKind) -> int:
        """Return the maximum batch size for a kind, bounded by the rate limit."""
        if kind is CandidateKind.BLOB and self._rules.limit_rate:
            return 1
        return min(self._rules.limit_deletions or GROUP, GROUP)

    async def _wait(self, may_go_on: Callable[[], bool]) -> bool:
        """Wait until the rate limit allows the next batch. Return False if the run must stop."""
        while may_go_on():
            delay = max(self._objects.delay, self._bytes.delay)
            if not delay:
                return True
            await asyncio.sleep(min(delay, 1.0))
        return False

    def _is_open(self) -> bool:
        return self._rules.is_open(clock.minute_of_day())

    def _is_odd(self, tx: Transaction) -> bool:
        """Return whether `_set_right` has work to do."""
        latest = state.read_clock(tx) + self._grace
        return queue.needs_repair(tx, self._rules.untagged_rules.fingerprint, latest)

    def _set_right(self, tx: Transaction) -> None:
        """Repair candidates in a bounded batch.

        Requeues parked manifests whose untagged rules have changed, and corrects times in the
        future.
        """
        queue.unpark(tx, self._rules.untagged_rules.fingerprint, CORRECTED)
        queue.repair_future_times(tx, state.read_clock(tx) + self._grace, CORRECTED)


def _count(tx: Transaction) -> dict[str, int]:
    return {kind.value: number for kind, number in queue.count(tx).items()}
