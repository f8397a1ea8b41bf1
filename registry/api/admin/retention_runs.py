"""Past runs of retention: listed, looked at and taken back."""

from registry.api.admin.call import Call
from registry.api.admin.fields import (
    PAGE,
    Asked,
    Moment,
    Number,
    Page,
    Pattern,
    Shown,
    Size,
    clamp,
    make_page,
)
from registry.api.admin.grants import PATTERN_ADMINS
from registry.api.admin.operation import Operation
from registry.auth.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.services.history import ManifestState
from registry.services.retention_runs import Drop, Run


class RetentionRun(Shown, frozen=True):
    """A run: when it first and last dropped something, and how many tags and manifests."""

    id: int
    started_at: Moment
    ended_at: Moment
    tags: int
    manifests: int


class RetentionDrop(Shown, frozen=True):
    """A tag that a run dropped, or a manifest, which has none; and what has become of the manifest
    since. `number`: of the change in the feed.
    """

    number: int
    at: Moment
    repository: str
    tag: str | None
    digest: str
    state: ManifestState


class SkippedDrop(Shown, frozen=True):
    """What was not put back, and why."""

    repository: str
    tag: str | None
    digest: str
    reason: str


class RestoredRun(Shown, frozen=True):
    """How many tags and manifests were put back, and what was not. `next`: the `first` of the piece
    that follows, null where all is done.
    """

    tags: int
    manifests: int
    skipped: list[SkippedDrop]
    next: int | None


class ListRuns(Asked, frozen=True):
    """A page of runs before the run `last`, 0 for the latest, that dropped something in the
    repositories of the pattern.
    """

    pattern: Pattern = "**"
    n: Size = PAGE
    last: Number = 0


class ListDrops(Asked, frozen=True):
    """A page of what a run dropped in the repositories of the pattern, after the change `last`."""

    run: Number
    pattern: Pattern = "**"
    n: Size = PAGE
    last: Number = 0


class RestoreRun(Asked, frozen=True):
    """A run, the repositories, and the change to begin with."""

    run: Number
    pattern: Pattern = "**"
    first: Number = 0


async def list_retention_runs(call: Call, asked: ListRuns) -> Page[RetentionRun]:
    """List the runs of retention in the last 90 days that dropped something, the latest first."""
    n = clamp(asked.n)
    runs = await call.registry.retention_runs.list_page(
        RepositoryPattern.parse(asked.pattern), n + 1, asked.last or None
    )
    return make_page(runs, n, _show_run, lambda run: run.id)


def _show_run(run: Run) -> RetentionRun:
    return RetentionRun(
        run.id, rfc3339(run.started_at), rfc3339(run.ended_at), run.tags, run.manifests
    )


async def list_retention_drops(call: Call, asked: ListDrops) -> Page[RetentionDrop]:
    """List what a run of retention dropped, and whether it can be restored."""
    n = clamp(asked.n)
    drops = await call.registry.retention_runs.list_drops(
        asked.run, RepositoryPattern.parse(asked.pattern), n + 1, asked.last
    )
    return make_page(drops, n, _show_drop, lambda drop: drop.row.number)


def _show_drop(drop: Drop) -> RetentionDrop:
    row = drop.row
    return RetentionDrop(
        number=row.number,
        at=rfc3339(row.at),
        repository=str(row.repository),
        tag=row.tag,
        digest=str(row.digest),
        state=drop.state,
    )


async def restore_retention_run(call: Call, asked: RestoreRun) -> RestoredRun:
    """Put back a part of what a run of retention dropped; asked again from `next`, it goes on."""
    restored = await call.registry.retention_runs.restore(
        asked.run, RepositoryPattern.parse(asked.pattern), call.actor, asked.first
    )
    return RestoredRun(
        restored.tags,
        restored.manifests,
        [
            SkippedDrop(str(row.repository), row.tag, str(row.digest), reason)
            for row, reason in restored.skipped
        ],
        restored.next,
    )


OPERATIONS = (
    Operation("GET", "/retention/runs", list_retention_runs, PATTERN_ADMINS),
    Operation(
        "GET", "/retention/runs/{run}", list_retention_drops, PATTERN_ADMINS, (NotFoundError,)
    ),
    Operation(
        "POST",
        "/retention/restore",
        restore_retention_run,
        PATTERN_ADMINS,
        (NotFoundError, ConflictError),
    ),
)
