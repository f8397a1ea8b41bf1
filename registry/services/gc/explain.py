"""Explanations why content is retained: all paths to it from tags, holds and other retainers."""

from collections.abc import Iterator

from msgspec import Struct

from registry.errors import NotFoundError
from registry.metadata.content import blobs, manifests, repositories, uploads
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import NO_REPOSITORY, CandidateKind, Transaction
from registry.metadata.gc import pending_deletions, queue, retainers, state, unreadable_manifests
from registry.metadata.gc.queue import SECOND
from registry.metadata.gc.retainers import Retainer
from registry.services.gc.settings import GcSettings
from storage.digest import Digest
from storage.keys import blob_key
from storage.stores import Stores

MOST = 1000
"""Maximum number of paths."""

MOST_STEPS = 20_000
"""Maximum number of steps in all paths. One path may have thousands of subjects."""


class Step(Struct, frozen=True):
    """A step of a path to retained content.

    `kind` is `tag`, or `index`, `subject` or `manifest` for a manifest that refers to the next
    step. The first step of a path without a tag gives the reason why the content is retained:

    - `hold`: the next step has a hold. `name` is the reason of the hold.
    - `untagged_rule`: untagged manifests are kept in the repository.
    - `grace_period`: the grace period lasts until `until`, in microseconds.
    - `unreadable_manifest`: a manifest of the repository cannot be read.
    - `not_queued`: nothing retains the content, but it is not queued either, which is a fault.
    - `none`: the content is deleted in one of the next runs.
    """

    kind: str
    repository: str
    name: str
    until: int | None = None


class Session(Struct, frozen=True):
    """An upload session that contains the same bytes."""

    id: str
    repository: str
    principal: str


class PendingDeletion(Struct, frozen=True):
    """A pending deletion of a key of the blob.

    `not_before` is in microseconds. `blocked_by_backup` is set while a backup
    delays the deletion.
    """

    store: str
    key: str
    not_before: int
    blocked_by_backup: bool


class Explanation(Struct, frozen=True):
    """The paths to the content, and its upload sessions and pending deletions.

    Each path starts with the retainer. `has_more` is set if there are further paths.
    """

    digest: Digest
    paths: list[list[Step]]
    has_more: bool
    upload_sessions: list[Session]
    pending_deletions: list[PendingDeletion]


class Explainer:
    """Explanations why content is retained."""

    def __init__(self, database: Database, stores: Stores, rules: GcSettings) -> None:
        self._db = database
        self._stores = stores
        self._rules = rules

    async def explain(self, digest: Digest) -> Explanation:
        """Return why the blob or manifest is retained.

        Raises NotFoundError if it does not exist.
        """
        return await self._db.read(lambda tx: self._explain(tx, digest), timeout_s=LONG_TIMEOUT_S)

    def _explain(self, tx: Transaction, digest: Digest) -> Explanation:
        paths: list[list[Step]] = []
        steps, has_more = 0, False
        for path in self._list_all(tx, digest):
            has_more = len(paths) == MOST or steps >= MOST_STEPS
            if has_more:
                break
            paths.append(path)
            steps += len(path)
        upload_sessions = [
            Session(row.id, str(row.repository), row.principal)
            for row in uploads.list_by_prefix_digest(tx, digest, MOST)
        ]
        is_blocked = leases.is_any_backup_running(tx)
        deletions = [
            PendingDeletion(store, key, not_before, is_blocked)
            for store in self._stores.names
            for key, not_before in pending_deletions.list_by_prefix(
                tx, store, blob_key(digest, ""), MOST
            )
        ]
        if not (paths or upload_sessions or deletions):
            raise NotFoundError("no blob or manifest has this digest")
        return Explanation(digest, paths, has_more, upload_sessions, deletions)

    def _list_all(self, tx: Transaction, digest: Digest) -> Iterator[list[Step]]:
        for name in manifests.list_repositories(tx, digest, MOST + 1):
            repository = repositories.find(tx, name)
            if repository is not None:
                yield from self._list_paths(tx, CandidateKind.MANIFEST, repository, digest)
        linked = False
        for _, name in retainers.list_retained_by(
            tx, CandidateKind.BLOB, NO_REPOSITORY, digest, MOST + 1
        ):
            linked = True
            repository = repositories.find(tx, name)
            if repository is not None:
                yield from self._list_paths(tx, CandidateKind.LINK, repository, digest)
        if not linked and blobs.find_anywhere(tx, digest) is not None:
            yield [self._find_root(tx, CandidateKind.BLOB, None, digest)]

    def _list_paths(
        self, tx: Transaction, kind: CandidateKind, repository: RepositoryRow, digest: Digest
    ) -> Iterator[list[Step]]:
        """Yield the paths to the manifest or link."""
        name = str(repository.name)
        # Iterative, because a chain of subjects may be longer than the recursion limit.
        waiting: list[tuple[CandidateKind, Digest, list[Step]]] = [(kind, digest, [])]
        while waiting:
            kind, digest, below = waiting.pop()
            keepers = retainers.list_retained_by(tx, kind, repository.id, digest, MOST + 1)
            if not keepers:
                yield [self._find_root(tx, kind, repository, digest), *below]
            for keeper, found in keepers:
                path = [Step(keeper.value, name, str(found)), *below]
                if keeper in {Retainer.TAG, Retainer.HOLD}:
                    yield path
                else:
                    waiting.append((CandidateKind.MANIFEST, found, path))

    def _find_root(
        self, tx: Transaction, kind: CandidateKind, repository: RepositoryRow | None, digest: Digest
    ) -> Step:
        """Return why content that nothing refers to is retained."""
        home = repository.id if repository is not None else NO_REPOSITORY
        name = str(repository.name) if repository is not None else ""

        def step(word: str, until: int | None = None) -> Step:
            return Step(word, name, str(digest), until)

        if kind is CandidateKind.MANIFEST and not self._rules.untagged_rules.deletes_untagged(name):
            return step("untagged_rule")
        if repository is not None and unreadable_manifests.is_any(tx, home):
            return step("unreadable_manifest")
        candidate = queue.find(tx, kind, home, digest)
        if candidate is None:
            return step("not_queued")
        until = candidate.since + int(self._rules.grace_period * SECOND)
        if until > state.read_clock(tx):
            return step("grace_period", until)
        return step("none")
