"""Garbage collection: what nothing refers to goes when its grace is over, bit by bit, always.

Candidates are queued by the transactions that drop references. To act on some, a transaction first
locks what they are in: the repository, which keeps pushes out, or the blobs, which keeps links out;
then the candidates, which keeps touches out; and only then asks, in a statement that sees all that
was done before, whether their grace is over and nothing refers to them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from registry import clock, metrics
from registry.auth.books import Actor, Event, note
from registry.errors import ManifestInvalidError
from registry.metadata import (
    blobs,
    candidates,
    doomed,
    holds,
    manifests,
    removed_manifests,
    repositories,
    rounds,
    walk,
)
from registry.metadata.candidates import SECOND, Candidate, Judged
from registry.metadata.database import Database
from registry.metadata.repositories import RepositoryRow
from registry.metadata.rounds import Round
from registry.metadata.transaction import NOWHERE, Kind, Transaction
from registry.oci.manifests import parse_manifest
from registry.services.gc_rules import GcRules
from registry.services.pace import Pace
from storage.digest import Digest

logger = logging.getLogger(__name__)

ACTOR = "gc"

BATCH = 200
"""Candidates listed at once."""

GROUP = 50
"""Candidates of one transaction at the most."""

HOLD = 0.02
"""Seconds after which a transaction takes on no more, so that nobody waits long for its locks."""

LOOKS = 8
"""How often a grace the clock is looked at, at the least."""


@dataclass(slots=True)
class Freed:
    """What a repository lost; `bytes` are those of the blobs, which others may still link."""

    manifests: int = 0
    blobs: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Tally:
    """What went. `seen`: candidates dealt with, most of which something keeps after all."""

    seen: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    repositories: dict[str, Freed] = field(default_factory=dict)

    def of(self, name: object) -> Freed:
        return self.repositories.setdefault(str(name), Freed())


@dataclass(frozen=True, slots=True)
class Status:
    """How the collector is. Times in microseconds; `waiting`: what it has yet to look at, by kind.

    `looked_at`: when it last looked at the clock. `paused_until` and `jump`: because the clock has
    jumped by so many microseconds. `walking`: what was there before the queue is not in it yet.
    """

    waiting: dict[str, int]
    due: bool
    looked_at: int
    paused_until: int | None
    jump: int
    walking: bool
    open: bool


@dataclass(slots=True)
class _Done:
    """What one transaction did."""

    seen: int = 0
    name: str = ""
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0


def find_jump(row: Round, boot: str, steady: int, now: int, grace: float) -> int:
    """By how much the database's clock has jumped since the last look, in microseconds; 0 for less
    than the grace. `now` by that clock, `steady` since `boot`.

    Nobody knows what went by while no machine looked that has not started anew: all of it is then
    taken for a jump.
    """
    if not row.boot:
        return 0
    jump = now - steady - row.ahead if row.boot == boot else now - row.clock
    return jump if abs(jump) > grace * SECOND else 0


class Collector:
    """The one that deletes what nobody asked to delete."""

    def __init__(self, database: Database, rules: GcRules) -> None:
        self._db = database
        self._rules = rules
        self._objects = Pace(rules.objects)
        self._bytes = Pace(rules.bytes)

    async def is_due(self) -> bool:
        """Whether `run` would find anything to do."""

        def work(tx: Transaction) -> bool:
            row, now = rounds.find(tx), rounds.read_clock(tx)
            if self._must_look(row, now):
                return True
            return self._is_open() and (
                self._may_walk(row, now)
                or self._is_odd(tx)
                or bool(self._list_due(tx, 1))
                or self._is_any_over(tx)
            )

        return await self._db.read(work)

    async def get_status(self) -> Status:
        grace = int(self._rules.grace * SECOND)

        def work(tx: Transaction) -> Status:
            row = rounds.find(tx)
            return Status(
                waiting={kind.value: n for kind, n in candidates.count(tx).items()},
                due=bool(self._list_due(tx, 1)),
                looked_at=row.clock,
                paused_until=None if row.jumped_at is None else row.jumped_at + grace,
                jump=row.jump,
                walking=row.filling is not None,
                open=self._is_open(),
            )

        return await self._db.read(work)

    async def run(self) -> int:
        """Do a bounded piece of work, if it is the time; how many candidates were dealt with."""
        if not self._is_open():
            await self.trusts_clock()
            return 0
        tally = Tally()
        more = await self.collect(tally, only_in_window=True)
        return tally.seen or int(more)

    async def collect(self, tally: Tally, *, only_in_window: bool = False) -> bool:
        """Do a piece of work, and add to `tally` what went; whether there may be more to do."""
        if not await self.trusts_clock():
            return False
        if await self._db.read(lambda tx: self._may_walk(rounds.find(tx), rounds.read_clock(tx))):
            await self._db.write(walk.go_on, actor=ACTOR)
            return True
        if await self._db.read(self._is_odd):
            await self._db.write(self._set_right, actor=ACTOR)
        before = tally.seen
        if await self._db.read(self._is_any_over):
            tally.seen += await self._db.write(self._let_go, actor=ACTOR)
        for group in _group(await self._db.read(lambda tx: self._list_due(tx, BATCH))):
            if only_in_window and not self._is_open():
                return False
            await self._collect(group, tally)
        return tally.seen > before

    def _list_due(self, tx: Transaction, n: int) -> list[Candidate]:
        return candidates.list_due(tx, self._rules.grace, n)

    def _is_open(self) -> bool:
        return self._rules.is_open(clock.minute_of_day())

    def _is_odd(self, tx: Transaction) -> bool:
        """Whether there is anything that `_set_right` would set right."""
        return candidates.is_any_odd(tx, self._rules.untagged.fingerprint, self._rules.grace)

    def _set_right(self, tx: Transaction) -> None:
        """Have parked manifests looked at again where the rules are others now, and correct times
        that lie ahead.
        """
        candidates.wake(tx, self._rules.untagged.fingerprint, BATCH)
        candidates.heal(tx, self._rules.grace, BATCH)

    def _is_any_over(self, tx: Transaction) -> bool:
        """Whether `_let_go` would find any."""
        due = removed_manifests.list_due(tx, self._rules.grace, 1)
        return bool(due or holds.list_over(tx, 1))

    def _let_go(self, tx: Transaction) -> int:
        """Forget deleted manifests whose grace is over, and holds that have expired; how many."""
        deadline = time.monotonic() + HOLD
        count = 0
        for row in holds.list_over(tx, GROUP):
            holds.delete(tx, row.id)
            target = f"{row.repository}@{row.digest}"
            note(tx, Actor(ACTOR), Event.HOLD_EXPIRE, target, hold=row.id, reason=row.reason)
            count += 1
        for key in removed_manifests.list_due(tx, self._rules.grace, GROUP):
            removed_manifests.delete(tx, key)
            count += 1
            if time.monotonic() > deadline:
                break
        return count

    def _may_walk(self, row: Round, now: int) -> bool:
        """Whether the walk through what was there before the queue goes on.

        Older code may have served on beside ours for a while, and queued nothing: it is gone a
        grace after the upgrade.
        """
        return row.filling is not None and now >= row.fill_since + self._rules.grace * SECOND

    # The clock.

    def _must_look(self, row: Round, now: int) -> bool:
        since = now - row.clock
        return row.boot != clock.boot() or not 0 <= since < self._rules.grace * SECOND / LOOKS

    async def trusts_clock(self) -> bool:
        """Whether ages can be believed: for a grace after the clock has jumped they cannot."""

        def look(tx: Transaction) -> tuple[Round, int, int]:
            return rounds.find(tx), rounds.read_clock(tx), clock.steady()

        row, now, steady = await self._db.read(look)
        boot, grace = clock.boot(), self._rules.grace
        jump = find_jump(row, boot, steady, now, grace)
        over = row.jumped_at is not None and now >= row.jumped_at + grace * SECOND
        if jump or over or self._must_look(row, now):
            same = row.boot == boot and not jump

            def note(tx: Transaction) -> None:
                rounds.note_look(tx, boot, row.ahead if same else now - steady, now)
                if jump:
                    rounds.note_jump(tx, now, jump)
                elif over:
                    rounds.forget_jump(tx)

            await self._db.write(note, actor=ACTOR)
        if jump:
            logger.warning(
                "the database's clock has moved by %.0f s that did not go by: nothing is collected "
                "for %.0f s from now",
                jump / SECOND,
                grace,
            )
            return False
        return row.jumped_at is None or over

    # Collecting.

    async def _collect(self, group: "_Group", tally: Tally) -> None:
        unreadable: set[Digest] = set()
        if group.kind is Kind.MANIFEST:
            unreadable = await self._db.read(lambda tx: self._list_unreadable(tx, group))

        def work(tx: Transaction) -> _Done:
            if group.kind is Kind.BLOB:
                return self._collect_blobs(tx, group.digests)
            repository = repositories.find_by_id(tx, group.repository_id, lock=True)
            if repository is None:
                candidates.delete(tx, group.kind, group.repository_id, group.digests)
                return _Done(len(group.digests))
            if group.kind is Kind.MANIFEST:
                return self._collect_manifests(tx, repository, group.digests, unreadable)
            return self._collect_links(tx, repository, group.digests)

        done = await self._db.write(work, actor=ACTOR)
        tally.seen += done.seen
        tally.manifests += done.manifests
        tally.blobs += done.blobs
        if done.manifests or done.links:
            freed = tally.of(done.name)
            freed.manifests += done.manifests
            freed.blobs += done.links
            freed.bytes += done.bytes
        metrics.COLLECTED.labels("manifest").inc(done.manifests)
        metrics.COLLECTED.labels("blob").inc(done.blobs)
        if done.blobs:
            tally.bytes += done.bytes
            metrics.COLLECTED_BYTES.inc(done.bytes)
            await self._bytes.take(done.bytes)
        await self._objects.take(done.manifests + done.links + done.blobs)

    def _judge(
        self, tx: Transaction, kind: Kind, repository_id: int, digests: Sequence[Digest]
    ) -> tuple[list[Candidate], int]:
        """Those that nothing keeps, locked, and how many are no candidates: they are forgotten."""
        locked = candidates.lock(tx, kind, repository_id, digests)
        judged = candidates.judge(tx, kind, repository_id, locked, self._rules.grace)
        rest = [each.candidate.digest for each in judged if not _is_idle(each)]
        candidates.delete(tx, kind, repository_id, rest)
        return [each.candidate for each in judged if _is_idle(each)], len(rest)

    def _list_unreadable(self, tx: Transaction, group: "_Group") -> set[Digest]:
        """Those of the manifests that are about to go whose bytes are not what they should be."""
        repository = repositories.find_by_id(tx, group.repository_id)
        if repository is None or not self._rules.untagged.go_in(str(repository.name)):
            return set()
        judged = candidates.judge(
            tx, Kind.MANIFEST, repository.id, group.digests, self._rules.grace
        )
        idle = [each.candidate.digest for each in judged if _is_idle(each)]
        return {digest for digest in idle if not _is_readable(tx, repository, digest)}

    def _collect_manifests(
        self,
        tx: Transaction,
        repository: RepositoryRow,
        digests: Sequence[Digest],
        unreadable: set[Digest],
    ) -> _Done:
        deadline = time.monotonic() + HOLD
        found, seen = self._judge(tx, Kind.MANIFEST, repository.id, digests)
        idle = [each.digest for each in found]
        done = _Done(seen, str(repository.name))
        if not self._rules.untagged.go_in(str(repository.name)):
            candidates.park(tx, repository.id, idle, self._rules.untagged.fingerprint)
            done.seen += len(idle)
            return done
        for digest in sorted(unreadable.intersection(idle)):
            logger.error(
                "the manifest %s@%s cannot be read: nothing of this repository is collected",
                repository.name,
                digest,
            )
            candidates.note_unreadable(tx, repository.id, digest)
        if self._is_unsure(tx, Kind.MANIFEST, repository, idle):
            done.seen += len(idle)
            return done
        gone = []
        for digest in idle:
            row = manifests.find(tx, repository.name, digest)
            if row is not None:
                manifests.delete(tx, repository, row)
                gone.append(digest)
            if time.monotonic() > deadline:
                break
        candidates.delete(tx, Kind.MANIFEST, repository.id, gone)
        repositories.remove_if_empty(tx, repository)
        done.seen += len(gone)
        done.manifests = len(gone)
        return done

    def _collect_links(
        self, tx: Transaction, repository: RepositoryRow, digests: Sequence[Digest]
    ) -> _Done:
        deadline = time.monotonic() + HOLD
        idle, seen = self._judge(tx, Kind.LINK, repository.id, digests)
        done = _Done(seen, str(repository.name))
        if self._is_unsure(tx, Kind.LINK, repository, [each.digest for each in idle]):
            done.seen += len(idle)
            return done
        sizes = blobs.measure_each(tx, [each.digest for each in idle])
        gone = []
        for each in idle:
            # Whoever was promised the blob was promised the link: no other grace for the blob.
            blobs.unlink(tx, repository, each.digest, each.since)
            gone.append(each.digest)
            done.bytes += sizes.get(each.digest, 0)
            if time.monotonic() > deadline:
                break
        candidates.delete(tx, Kind.LINK, repository.id, gone)
        repositories.remove_if_empty(tx, repository)
        done.seen += len(gone)
        done.links = len(gone)
        return done

    def _collect_blobs(self, tx: Transaction, digests: Sequence[Digest]) -> _Done:
        rows = {row.digest: row for row in blobs.lock_idle(tx, digests)}
        idle, seen = self._judge(tx, Kind.BLOB, NOWHERE, digests)
        gone = [each.digest for each in idle if each.digest in rows]
        blobs.delete(tx, gone)
        for digest in gone:
            doomed.insert(tx, rows[digest].store, rows[digest].key, "collected")
        candidates.delete(tx, Kind.BLOB, NOWHERE, gone)
        return _Done(
            seen + len(gone), blobs=len(gone), bytes=sum(rows[digest].size for digest in gone)
        )

    @staticmethod
    def _is_unsure(
        tx: Transaction, kind: Kind, repository: RepositoryRow, idle: Sequence[Digest]
    ) -> bool:
        """Whether what cannot be read might need any of it: then all of it waits another grace."""
        if not idle or not candidates.has_unreadable(tx, repository.id):
            return False
        candidates.postpone(tx, kind, repository.id, idle)
        return True


def _is_idle(judged: Judged) -> bool:
    return judged.present and not judged.kept


def _is_readable(tx: Transaction, repository: RepositoryRow, digest: Digest) -> bool:
    found = manifests.find_whole(tx, repository.name, digest)
    if found is None or Digest.of(found.raw, digest.algorithm) != digest:
        return False
    try:
        parse_manifest(found.raw, found.row.media_type)
    except ManifestInvalidError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Group:
    """Candidates for one transaction."""

    kind: Kind
    repository_id: int
    digests: list[Digest]


def _group(found: Sequence[Candidate]) -> list[_Group]:
    """The candidates by what they are in, each in order of digests."""
    by_place: dict[tuple[Kind, int], list[Digest]] = {}
    for each in found:
        by_place.setdefault((each.kind, each.repository_id), []).append(each.digest)
    groups = []
    for (kind, repository_id), digests in by_place.items():
        rest = iter(sorted(digests))
        while some := list(islice(rest, GROUP)):
            groups.append(_Group(kind, repository_id, some))
    return groups
