"""Why something is kept: every path to it from a tag, and whatever else lets it stay."""

from collections.abc import Iterator
from dataclasses import dataclass

from registry.errors import NotFoundError
from registry.metadata import (
    blobs,
    candidates,
    doomed,
    leases,
    manifests,
    reasons,
    repositories,
    rounds,
    unreadable,
    uploads,
)
from registry.metadata.call import LONG
from registry.metadata.candidates import SECOND
from registry.metadata.database import Database
from registry.metadata.reasons import Keeper
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import NOWHERE, Kind, Transaction
from registry.services.gc_rules import GcRules
from storage.digest import Digest
from storage.keys import blob_key
from storage.stores import Stores

MOST = 1000
"""Paths that are shown."""

MOST_STEPS = 20_000
"""Steps of all paths that are shown: one path may lead over thousands of subjects."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a path. `kind`: a `tag`, or the `index`, `subject` or `manifest` that refers to the
    next step. Where a path begins without a tag, it is why that stays all the same.

    `hold`: somebody holds the next step, for the reason that is the name; `rule`: untagged
    manifests are kept in the repository; `grace`: it may go at `until`, in microseconds;
    `unreadable`: a manifest of the repository cannot be read; `unqueued`: it was there before the
    queue was, and is not in it yet; `nothing`: it goes as soon as it is its turn.
    """

    kind: str
    repository: str
    name: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """An upload session that has the very bytes."""

    id: str
    repository: str
    principal: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A key of the blob whose bytes are to be removed, not before so many microseconds. `held`: not
    while a backup is made.
    """

    store: str
    key: str
    not_before: int
    held: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Each path begins with what keeps all of it. `more`: there are others."""

    digest: Digest
    paths: list[list[Step]]
    more: bool
    sessions: list[Session]
    removals: list[Removal]


class Why:
    """Answers people."""

    def __init__(self, database: Database, stores: Stores, rules: GcRules) -> None:
        self._db = database
        self._stores = stores
        self._rules = rules

    async def explain(self, digest: Digest) -> Explanation:
        """Why the blob or manifest is kept; NotFoundError if there is no such thing at all."""
        return await self._db.read(lambda tx: self._explain(tx, digest), patience=LONG)

    def _explain(self, tx: Transaction, digest: Digest) -> Explanation:
        paths: list[list[Step]] = []
        steps, more = 0, False
        for path in self._list_all(tx, digest):
            more = len(paths) == MOST or steps >= MOST_STEPS
            if more:
                break
            paths.append(path)
            steps += len(path)
        sessions = [
            Session(row.id, str(row.repository), row.principal)
            for row in uploads.list_with(tx, digest, MOST)
        ]
        held = leases.is_any_backup_running(tx)
        removals = [
            Removal(store, key, not_before, held)
            for store in self._stores.names
            for key, not_before in doomed.list_beginning(tx, store, blob_key(digest, ""), MOST)
        ]
        if not (paths or sessions or removals):
            raise NotFoundError("there is neither a blob nor a manifest of this digest")
        return Explanation(digest, paths, more, sessions, removals)

    def _list_all(self, tx: Transaction, digest: Digest) -> Iterator[list[Step]]:
        for name in manifests.list_repositories(tx, digest, MOST + 1):
            repository = repositories.find(tx, name)
            if repository is not None:
                yield from self._list_paths(tx, Kind.MANIFEST, repository, digest)
        linked = False
        for _, name in reasons.list_kept_by(tx, Kind.BLOB, NOWHERE, digest, MOST + 1):
            linked = True
            repository = repositories.find(tx, name)
            if repository is not None:
                yield from self._list_paths(tx, Kind.LINK, repository, digest)
        if not linked and blobs.find_anywhere(tx, digest) is not None:
            yield [self._find_root(tx, Kind.BLOB, None, digest)]

    def _list_paths(
        self, tx: Transaction, kind: Kind, repository: RepositoryRow, digest: Digest
    ) -> Iterator[list[Step]]:
        """The paths to the manifest or link."""
        name = str(repository.name)
        # Not by recursion: a chain of subjects may be longer than the stack is deep.
        waiting: list[tuple[Kind, Digest, list[Step]]] = [(kind, digest, [])]
        while waiting:
            kind, digest, below = waiting.pop()
            keepers = reasons.list_kept_by(tx, kind, repository.id, digest, MOST + 1)
            if not keepers:
                yield [self._find_root(tx, kind, repository, digest), *below]
            for keeper, found in keepers:
                path = [Step(keeper.value, name, str(found)), *below]
                if keeper in {Keeper.TAG, Keeper.HOLD}:
                    yield path
                else:
                    waiting.append((Kind.MANIFEST, found, path))

    def _find_root(
        self, tx: Transaction, kind: Kind, repository: RepositoryRow | None, digest: Digest
    ) -> Step:
        """Why something stays that nothing refers to."""
        home = repository.id if repository is not None else NOWHERE
        name = str(repository.name) if repository is not None else ""

        def step(word: str, until: int | None = None) -> Step:
            return Step(word, name, str(digest), until)

        if kind is Kind.MANIFEST and not self._rules.untagged.go_in(name):
            return step("rule")
        if repository is not None and unreadable.is_any(tx, home):
            return step("unreadable")
        candidate = candidates.find(tx, kind, home, digest)
        if candidate is None:
            return step("unqueued")
        until = candidate.since + int(self._rules.grace * SECOND)
        if until > rounds.read_clock(tx):
            return step("grace", until)
        return step("nothing")
