"""Past retention runs: what they dropped, and restoring it.

Runs are derived from the change feed: consecutive drops without a long pause form a run. The id of
a run is the revision of its first drop.
"""

from collections.abc import Iterator

from msgspec import Struct, field

from registry import clock
from registry.auth.audit_log import Actor
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import (
    ConflictError,
    ManifestContentMissingError,
    ManifestUnknownError,
    NotFoundError,
    ProtectedError,
    QuotaExceededError,
)
from registry.metadata.content import repositories, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import drops, rules
from registry.metadata.retention.drops import DropRow
from registry.oci.names import list_patterns
from registry.oci.references import Tag
from registry.services.content.history import History, ManifestState, find_states

PAUSE_US = 600_000_000
"""Microseconds without a drop after which a new run starts."""

REACH_US = 90 * 86_400_000_000
"""Age up to which runs are listed, in microseconds."""

AT_ONCE = 100
"""Drops restored per call."""

_PAGE = 1000


class Run(Struct):
    """A run: the times of its first and last drop, in microseconds, and the number of drops."""

    id: int
    started_at: int
    ended_at: int
    tags: int = 0
    manifests: int = 0


class Drop(Struct, frozen=True):
    """A dropped tag or manifest, with the current state of its manifest."""

    row: DropRow
    state: ManifestState


class Restored(Struct):
    """Result of a restore call.

    `skipped` contains the drops that were not restored, with reasons. `next` is the revision
    for the next call, or None at the end.
    """

    tags: int = 0
    manifests: int = 0
    skipped: list[tuple[DropRow, str]] = field(default_factory=list)
    next: int | None = None


class RetentionRuns:
    """Lists of past retention runs, and restores of what they dropped."""

    def __init__(self, database: Database, history: History) -> None:
        self._db = database
        self._history = history

    async def list_page(
        self, asked: RepositoryPattern, n: int, before: int | None = None
    ) -> list[Run]:
        """Return at most `n` runs, latest first.

        Only runs that dropped something in matching repositories are listed. `before` is the id of
        the run to continue before.
        """
        return await self._db.read(
            lambda tx: _list_runs(tx, asked, n, before), timeout_s=LONG_TIMEOUT_S
        )

    async def list_drops(self, run: int, asked: RepositoryPattern, n: int, last: int) -> list[Drop]:
        """Return at most `n` drops of the run in matching repositories, after the change `last`.

        Raises NotFoundError.
        """

        def work(tx: Transaction) -> list[Drop]:
            found: list[Drop] = []
            for row in _iter_run(tx, run):
                if row.revision > last and asked.matches(str(row.repository)):
                    state = find_states(tx, row.repository, [row.digest])[row.digest]
                    found.append(Drop(row, state))
                if len(found) == n:
                    break
            return found

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)

    async def restore(
        self, run: int, asked: RepositoryPattern, actor: Actor, first: int = 0
    ) -> Restored:
        """Restore a batch of drops of the run in matching repositories.

        The batch starts at the change `first`. Tags that have been set again stay as they are.
        Raises NotFoundError, and ConflictError while enabled rules would drop the content again.
        """

        def read(tx: Transaction) -> tuple[list[DropRow], int | None]:
            rows: list[DropRow] = []
            for row in _iter_run(tx, run):
                if row.revision < first or not asked.matches(str(row.repository)):
                    continue
                if len(rows) == AT_ONCE:
                    return rows, row.revision
                _require_disabled(tx, row)
                rows.append(row)
            return rows, None

        rows, following = await self._db.read(read, timeout_s=LONG_TIMEOUT_S)
        restored = Restored(next=following)
        for row in rows:
            try:
                await self._put_back(row, actor, restored)
            except (
                ManifestContentMissingError,
                ManifestUnknownError,
                ProtectedError,
                QuotaExceededError,
            ) as error:
                restored.skipped.append((row, error.message))
        return restored

    async def _put_back(self, row: DropRow, actor: Actor, restored: Restored) -> None:
        if row.tag is None:
            if await self._history.restore_manifest(row.repository, row.digest, actor):
                restored.manifests += 1
            return
        tag = Tag(row.tag)
        now = await self._db.read(lambda tx: _find_tag(tx, row, tag))
        if now is None:
            await self._history.restore(row.repository, tag, actor, digest=row.digest)
            restored.tags += 1
        elif now != row.digest:
            restored.skipped.append((row, "the tag exists again"))


def _find_tag(tx: Transaction, row: DropRow, tag: Tag) -> object:
    repository = repositories.find(tx, row.repository)
    return tags.find(tx, repository, tag) if repository is not None else None


def _require_disabled(tx: Transaction, row: DropRow) -> None:
    """Raise ConflictError if an enabled rule matches the repository."""
    for rule in rules.list_of(tx, list_patterns(str(row.repository))):
        if rule.enabled:
            raise ConflictError(
                f"the retention rules for {rule.pattern} are enabled and would drop "
                f"restored tags again; first run moorage retention disable '{rule.pattern}'"
            )


def _list_runs(tx: Transaction, asked: RepositoryPattern, n: int, before: int | None) -> list[Run]:
    runs: list[Run] = []
    current: Run | None = None
    for row in _iter_back(tx, before):
        if current is None or current.started_at - row.at > PAUSE_US:
            # Leave out a run without drops in matching repositories.
            if current is not None and not (current.tags or current.manifests):
                runs.pop()
            if len(runs) == n:
                return runs
            current = Run(row.revision, row.at, row.at)
            runs.append(current)
        current.id, current.started_at = row.revision, row.at
        if asked.matches(str(row.repository)):
            current.tags += row.tag is not None
            current.manifests += row.tag is None
    if current is not None and not (current.tags or current.manifests):
        runs.pop()
    return runs


def _iter_back(tx: Transaction, revision: int | None) -> Iterator[DropRow]:
    since = clock.now_us() - REACH_US
    while rows := drops.list_before(tx, revision, since, _PAGE):
        yield from rows
        revision = rows[-1].revision


def _iter_run(tx: Transaction, run: int) -> Iterator[DropRow]:
    """Yield the drops of a run. Raises NotFoundError."""
    revision, at = run, None
    while rows := drops.list_from(tx, revision, _PAGE):
        for row in rows:
            if at is None and row.revision != run:
                break
            if at is not None and row.at - at > PAUSE_US:
                return
            at = row.at
            yield row
        else:
            revision = rows[-1].revision + 1
            continue
        break
    if at is None:
        raise NotFoundError(f"no retention run {run}; moorage retention runs lists them")
