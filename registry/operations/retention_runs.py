"""Past retention runs: listing, inspecting and reverting them."""

from registry.auth.policy.patterns import RepositoryPattern
from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    Number,
    Page,
    Pattern,
    RequestModel,
    ResponseModel,
    Size,
    Timestamp,
    clamp,
    make_page,
)
from registry.operations.operation import Operation
from registry.operations.permissions import PATTERN_ADMINS
from registry.services.content.history import ManifestState
from registry.services.retention.runs import Drop, Run


class RetentionRun(ResponseModel, frozen=True):
    """A retention run: the times of its first and last deletion, and how much it deleted."""

    id: int
    started_at: Timestamp
    ended_at: Timestamp
    tags: int
    manifests: int


class RetentionDrop(ResponseModel, frozen=True):
    """A tag or a manifest that a run deleted. `tag` is null for a manifest.

    `state` is the current state of the manifest. `number` is that of the change in the change feed.
    """

    number: int
    at: Timestamp
    repository: str
    tag: str | None
    digest: str
    state: ManifestState


class SkippedDrop(ResponseModel, frozen=True):
    """A tag or a manifest that was not restored, and why."""

    repository: str
    tag: str | None
    digest: str
    reason: str


class RestoredRun(ResponseModel, frozen=True):
    """How many tags and manifests were restored, and which were not.

    `next` is the `first` of the next request; null if nothing is left.
    """

    tags: int
    manifests: int
    skipped: list[SkippedDrop]
    next: int | None


class ListRuns(RequestModel, frozen=True):
    """A page of the runs before the run `last`; 0 means from the latest.

    Only runs that deleted something in the repositories of the pattern are listed.
    """

    pattern: Pattern = "**"
    n: Size = PAGE_SIZE
    last: Number = 0


class ListDrops(RequestModel, frozen=True):
    """A page of the deletions of a run: `n` entries after the change `last`.

    Only deletions in the repositories of the pattern are listed.
    """

    run: Number
    pattern: Pattern = "**"
    n: Size = PAGE_SIZE
    last: Number = 0


class RestoreRun(RequestModel, frozen=True):
    """A run, a pattern of repositories, and the change to start from."""

    run: Number
    pattern: Pattern = "**"
    first: Number = 0


async def list_retention_runs(context: OperationContext, request: ListRuns) -> Page[RetentionRun]:
    """List the retention runs of the last 90 days that deleted something, the latest first."""
    n = clamp(request.n)
    runs = await context.registry.retention_runs.list_page(
        RepositoryPattern.parse(request.pattern), n + 1, request.last or None
    )
    return make_page(runs, n, _show_run, lambda run: run.id)


def _show_run(run: Run) -> RetentionRun:
    return RetentionRun(
        run.id, rfc3339(run.started_at), rfc3339(run.ended_at), run.tags, run.manifests
    )


async def list_retention_drops(
    context: OperationContext, request: ListDrops
) -> Page[RetentionDrop]:
    """List what a retention run deleted, and whether it can be restored."""
    n = clamp(request.n)
    drops = await context.registry.retention_runs.list_drops(
        request.run, RepositoryPattern.parse(request.pattern), n + 1, request.last
    )
    return make_page(drops, n, _show_drop, lambda drop: drop.row.revision)


def _show_drop(drop: Drop) -> RetentionDrop:
    row = drop.row
    return RetentionDrop(
        number=row.revision,
        at=rfc3339(row.at),
        repository=str(row.repository),
        tag=row.tag,
        digest=str(row.digest),
        state=drop.state,
    )


async def restore_retention_run(context: OperationContext, request: RestoreRun) -> RestoredRun:
    """Restore a batch of what a retention run deleted. Repeat the request from `next`."""
    restored = await context.registry.retention_runs.restore(
        request.run, RepositoryPattern.parse(request.pattern), context.actor, request.first
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
