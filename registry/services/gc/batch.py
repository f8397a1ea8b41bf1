"""Collection of one batch of candidates in a short transaction.

The transaction takes its locks in this order:

- The container of the candidates: the repository, which blocks pushes, or the blobs, which blocks
  new links.
- The candidates, which blocks transactions that queue or touch them again.

Only then does it check that nothing refers to the candidates, with a statement that sees all
changes committed before.
"""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice

from msgspec import Struct, field

from registry.metadata.content import blobs, manifests, repositories
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import NO_REPOSITORY, CandidateKind, Transaction
from registry.metadata.gc import pending_deletions, queue
from registry.metadata.gc import unreadable_manifests as unreadable_notes
from registry.metadata.gc.queue import Candidate
from registry.services.gc.manifest_scrub import is_readable
from registry.services.gc.untagged import UntaggedRules
from storage.digest import Digest

logger = logging.getLogger(__name__)

GROUP = 50
"""Maximum number of candidates per transaction."""

HOLD = 0.02
"""Seconds after which a transaction takes no further candidates, to limit lock times."""


class Batch(Struct, frozen=True):
    """Candidates that are collected in one transaction."""

    kind: CandidateKind
    repository_id: int
    digests: list[Digest]


class BatchResult(Struct):
    """The result of one transaction.

    `name` is the repository, if the candidates belong to one. `links` to blobs of `unlinked` bytes
    were removed from it. `blobs` of `freed` bytes were deleted from the registry. `examined` is the
    number of candidates processed. `lock_seconds` is an upper bound for the time in which locks
    were held.
    """

    examined: int = 0
    name: str = ""
    manifests: int = 0
    links: int = 0
    unlinked: int = 0
    blobs: int = 0
    freed: int = 0
    lock_seconds: float = 0.0


class CollectedContent(Struct):
    """What a repository lost.

    `bytes` counts unlinked blobs, which other repositories may still link.
    """

    manifests: int = 0
    blobs: int = 0
    bytes: int = 0


class GcReport(Struct):
    """Totals of a garbage collection run.

    `examined` is the number of candidates processed, most of which are still referenced.
    `longest_lock_seconds` is the longest time in which one transaction held locks.
    """

    examined: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    longest_lock_seconds: float = 0.0
    repositories: dict[str, CollectedContent] = field(default_factory=dict)

    def add(self, done: BatchResult) -> None:
        """Add the result of one transaction."""
        self.examined += done.examined
        self.manifests += done.manifests
        self.blobs += done.blobs
        self.bytes += done.freed
        self.longest_lock_seconds = max(self.longest_lock_seconds, done.lock_seconds)
        if done.manifests or done.links:
            freed = self.repositories.setdefault(done.name, CollectedContent())
            freed.manifests += done.manifests
            freed.blobs += done.links
            freed.bytes += done.unlinked


def group(
    found: Sequence[Candidate], most: Callable[[CandidateKind], int] = lambda _: GROUP
) -> list[Batch]:
    """Group candidates by kind and repository, ordered by digest.

    A group has at most `most(kind)` candidates.
    """
    by_place: dict[tuple[CandidateKind, int], list[Digest]] = {}
    for each in found:
        by_place.setdefault((each.kind, each.repository_id), []).append(each.digest)
    groups = []
    for (kind, repository_id), digests in by_place.items():
        rest = iter(sorted(digests))
        while some := list(islice(rest, most(kind))):
            groups.append(Batch(kind, repository_id, some))
    return groups


class BatchCollector:
    """The deletion of unreferenced candidates whose grace period started at or before `until`."""

    def __init__(self, rules: UntaggedRules, until: int) -> None:
        self._rules = rules
        self._until = until

    def list_unreadable(self, tx: Transaction, some: Batch) -> set[Digest]:
        """Return the digests of collectable manifests of a group that are unreadable."""
        repository = repositories.find_by_id(tx, some.repository_id)
        if repository is None or not self._deletes_untagged(repository):
            return set()
        evaluated = queue.evaluate(tx, some.kind, repository.id, some.digests, self._until)
        idle = [each.candidate.digest for each in evaluated if each.is_idle]
        return {digest for digest in idle if not _is_readable(tx, repository, digest)}

    def collect(self, tx: Transaction, some: Batch, unreadable: set[Digest]) -> BatchResult:
        """Delete the collectable candidates. `unreadable` is the result of `list_unreadable`."""
        if some.kind is CandidateKind.BLOB:
            return self._collect_blobs(tx, some.digests)
        repository = repositories.find_by_id(tx, some.repository_id, lock=True)
        if repository is None:
            queue.delete(tx, some.kind, some.repository_id, some.digests)
            return BatchResult(len(some.digests))
        done = BatchResult(name=str(repository.name))
        idle = self._lock_idle(tx, some.kind, repository.id, some.digests, done)
        digests = [each.digest for each in idle]
        if some.kind is CandidateKind.MANIFEST and not self._deletes_untagged(repository):
            queue.park(tx, repository.id, digests, self._rules.fingerprint)
            done.examined += len(digests)
            return done
        for digest in sorted(unreadable.intersection(digests)):
            unreadable_notes.record(tx, repository.id, digest)
        if digests and unreadable_notes.is_any(tx, repository.id):
            # An unreadable manifest may refer to any of them, so they get another grace period.
            queue.postpone(tx, some.kind, repository.id, digests)
            done.examined += len(digests)
            return done
        if some.kind is CandidateKind.MANIFEST:
            self._collect_manifests(tx, repository, digests, done)
        else:
            self._collect_links(tx, repository, idle, done)
        repositories.remove_if_empty(tx, repository)
        return done

    def preview(self, tx: Transaction, some: Batch) -> BatchResult:
        """Return what `collect` would do."""
        evaluated = queue.evaluate(tx, some.kind, some.repository_id, some.digests, self._until)
        idle = [each.candidate.digest for each in evaluated if each.is_idle]
        done = BatchResult(len(evaluated))
        sizes = blobs.measure_each(tx, idle)
        if some.kind is CandidateKind.BLOB:
            done.blobs, done.freed = len(sizes), sum(sizes.values())
            return done
        repository = repositories.find_by_id(tx, some.repository_id)
        if repository is None or unreadable_notes.is_any(tx, repository.id):
            return done
        done.name = str(repository.name)
        if some.kind is CandidateKind.LINK:
            gone = queue.list_last(tx, repository.id, idle, self._until)
            done.links, done.unlinked = len(sizes), sum(sizes.values())
            done.blobs, done.freed = len(gone), sum(sizes[digest] for digest in gone)
        elif self._deletes_untagged(repository) and not self.list_unreadable(tx, some):
            done.manifests = len(idle)
        return done

    def _deletes_untagged(self, repository: RepositoryRow) -> bool:
        return self._rules.deletes_untagged(str(repository.name))

    def _lock_idle(
        self,
        tx: Transaction,
        kind: CandidateKind,
        repository_id: int,
        digests: Sequence[Digest],
        done: BatchResult,
    ) -> list[Candidate]:
        """Return the locked candidates that nothing refers to. Delete the others from the queue."""
        locked = queue.lock(tx, kind, repository_id, digests)
        evaluated = queue.evaluate(tx, kind, repository_id, locked, self._until)
        rest = [each.candidate.digest for each in evaluated if not each.is_idle]
        queue.delete(tx, kind, repository_id, rest)
        done.examined += len(rest)
        return [each.candidate for each in evaluated if each.is_idle]

    @staticmethod
    def _collect_manifests(
        tx: Transaction, repository: RepositoryRow, idle: Sequence[Digest], done: BatchResult
    ) -> None:
        deadline = time.monotonic() + HOLD
        gone = []
        for row in manifests.list_present(tx, repository, list(idle)).values():
            manifests.delete(tx, repository, row)
            gone.append(row.digest)
            if time.monotonic() > deadline:
                break
        queue.delete(tx, CandidateKind.MANIFEST, repository.id, gone)
        done.examined += len(gone)
        done.manifests = len(gone)

    @staticmethod
    def _collect_links(
        tx: Transaction, repository: RepositoryRow, idle: Sequence[Candidate], done: BatchResult
    ) -> None:
        # The grace period of the link also covered the blob, so the blob gets no further one.
        gone = blobs.unlink(tx, repository, {each.digest: each.since for each in idle})
        sizes = blobs.measure_each(tx, sorted(gone))
        queue.delete(tx, CandidateKind.LINK, repository.id, [each.digest for each in idle])
        done.examined += len(idle)
        done.links, done.unlinked = len(gone), sum(sizes.values())

    def _collect_blobs(self, tx: Transaction, digests: Sequence[Digest]) -> BatchResult:
        done = BatchResult()
        rows = {row.digest: row for row in blobs.lock_available(tx, digests)}
        idle = self._lock_idle(tx, CandidateKind.BLOB, NO_REPOSITORY, digests, done)
        gone = [rows[each.digest] for each in idle if each.digest in rows]
        blobs.delete(tx, [row.digest for row in gone])
        pending_deletions.insert_all(tx, [(row.store, row.key) for row in gone], "collected")
        queue.delete(tx, CandidateKind.BLOB, NO_REPOSITORY, [row.digest for row in gone])
        done.examined += len(gone)
        done.blobs, done.freed = len(gone), sum(row.size for row in gone)
        return done


def _is_readable(tx: Transaction, repository: RepositoryRow, digest: Digest) -> bool:
    found = manifests.find_with_bytes(tx, repository.name, digest)
    return found is not None and is_readable(found.raw, found.row.media_type, digest)
