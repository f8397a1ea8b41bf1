"""Syncs of mirrors: runs that copy many images, and their schedules."""

from typing import Annotated

from msgspec import Meta

from registry.clock import rfc3339
from registry.errors import ConflictError, NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    PAGE_SIZE,
    DurationText,
    Number,
    Page,
    RequestModel,
    ResponseModel,
    Size,
    Timestamp,
    clamp,
    make_page,
    read_duration,
    write_timestamp,
)
from registry.operations.mirrors.mirrors import MirrorName, NamedMirror
from registry.operations.operation import ADMINS, Operation
from registry.services.syncs.options import SyncOptions
from registry.services.syncs.report import SyncAction, SyncCounts, TagChange
from registry.services.syncs.syncs import SyncRun, SyncSchedule, SyncState
from registry.units import format_duration

RunNumber = Annotated[Number, Meta(description="The number of a run.")]
ScheduleNumber = Annotated[Number, Meta(description="The number of a schedule.")]


class StartSync(SyncOptions, RequestModel, frozen=True):
    """What to copy. With `dry_run`, only the plan is made."""

    name: MirrorName
    dry_run: bool = False


class AddSchedule(SyncOptions, RequestModel, frozen=True):
    """What to copy, and how often."""

    name: MirrorName
    every: DurationText


class NamedRun(RequestModel, frozen=True):
    """A run of a mirror."""

    name: MirrorName
    run: RunNumber


class ListSyncs(RequestModel, frozen=True):
    """A page of the runs of a mirror before the run `last`; 0 means from the latest."""

    name: MirrorName
    n: Size = PAGE_SIZE
    last: Number = 0


class NamedSchedule(RequestModel, frozen=True):
    """A schedule of a mirror."""

    name: MirrorName
    schedule: ScheduleNumber


class SyncProgress(ResponseModel, frozen=True):
    """The numbers of a run.

    `planned` tags are added, moved or completed, of which `done` are; `planned_removals` are
    deleted, of which `removed` are. `bytes` are those of missing blobs, of which `copied_bytes`
    have arrived. `failed` counts tags and repositories. `is_planned` says whether the plan is
    complete.
    """

    repositories: int
    tags: int
    unchanged: int
    planned: int
    planned_removals: int
    bytes: int
    done: int
    removed: int
    failed: int
    blobs: int
    copied_bytes: int
    is_planned: bool


class SyncChange(ResponseModel, frozen=True):
    """A tag that a run changes. `bytes` are those of missing blobs.

    `before` is the digest to which the tag points until then, null if there is none. `problem` says
    why the change was not made.
    """

    repository: str
    tag: str
    action: SyncAction
    digest: str
    before: str | None
    bytes: int
    problem: str | None


class SyncInfo(ResponseModel, frozen=True):
    """A run of a sync.

    It lists up to 2000 changes; `more` is the number of others. `notes` are problems that concern
    no listed change.
    """

    id: int
    mirror: str
    schedule: int | None
    options: SyncOptions
    dry_run: bool
    state: SyncState
    progress: SyncProgress
    changes: list[SyncChange]
    more: int
    notes: list[str]
    created_by: str
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class SyncResult(ResponseModel, frozen=True):
    """The result of a run, without its changes."""

    run: int
    state: SyncState
    progress: SyncProgress
    ended_at: Timestamp | None


class ScheduleInfo(ResponseModel, frozen=True):
    """A schedule: when its next run is due, and its last run."""

    id: int
    mirror: str
    every: str
    options: SyncOptions
    next_at: Timestamp
    last: SyncResult | None
    created_by: str
    created_at: Timestamp


def _show_counts(counts: SyncCounts) -> SyncProgress:
    return SyncProgress(**{name: getattr(counts, name) for name in counts.__struct_fields__})


def _show_change(change: TagChange) -> SyncChange:
    return SyncChange(**{name: getattr(change, name) for name in change.__struct_fields__})


def _show_run(run: SyncRun) -> SyncInfo:
    return SyncInfo(
        id=run.id,
        mirror=run.mirror,
        schedule=run.schedule_id,
        options=run.request.options,
        dry_run=run.request.is_dry,
        state=run.state,
        progress=_show_counts(run.counts),
        changes=[_show_change(each) for each in run.report.changes],
        more=run.report.more,
        notes=list(run.report.notes),
        created_by=run.created_by,
        created_at=rfc3339(run.created_at),
        started_at=write_timestamp(run.started_at),
        ended_at=write_timestamp(run.ended_at),
    )


def _show_schedule(mirror: str, schedule: SyncSchedule) -> ScheduleInfo:
    last = schedule.last
    return ScheduleInfo(
        id=schedule.id,
        mirror=mirror,
        every=format_duration(schedule.every_s),
        options=schedule.options,
        next_at=rfc3339(schedule.next_at),
        last=None
        if last is None
        else SyncResult(
            last.id, last.state, _show_counts(last.counts), write_timestamp(last.ended_at)
        ),
        created_by=schedule.created_by,
        created_at=rfc3339(schedule.created_at),
    )


def _read_options(request: StartSync | AddSchedule) -> SyncOptions:
    names = SyncOptions.__struct_fields__
    return SyncOptions(**{name: getattr(request, name) for name in names})


async def start_sync(context: OperationContext, request: StartSync) -> SyncInfo:
    """Request a sync of a mirror. A background job carries it out, one of each mirror at a time."""
    return _show_run(
        await context.registry.syncs.request(
            request.name, _read_options(request), context.actor, is_dry=request.dry_run
        )
    )


async def list_syncs(context: OperationContext, request: ListSyncs) -> Page[SyncInfo]:
    """List the runs of a mirror, the latest first. Old ones are deleted."""
    n = clamp(request.n)
    runs = await context.registry.syncs.list_runs(request.name, request.last or None, n + 1)
    return make_page(runs, n, _show_run, lambda run: run.id)


async def get_sync(context: OperationContext, request: NamedRun) -> SyncInfo:
    """Return a run with its progress, its plan and what has failed."""
    return _show_run(await context.registry.syncs.get(request.name, request.run))


async def cancel_sync(context: OperationContext, request: NamedRun) -> SyncInfo:
    """Cancel a run. The copied images stay."""
    return _show_run(await context.registry.syncs.cancel(request.name, request.run, context.actor))


async def list_schedules(context: OperationContext, request: NamedMirror) -> Page[ScheduleInfo]:
    """List the schedules of a mirror, with the next and the last run of each."""
    found = await context.registry.syncs.list_schedules(request.name)
    return Page([_show_schedule(request.name, each) for each in found], None)


async def create_schedule(context: OperationContext, request: AddSchedule) -> ScheduleInfo:
    """Add a schedule of a mirror. Its first run is due at once."""
    every = read_duration(request.every) or 0
    added = await context.registry.syncs.add_schedule(
        request.name, _read_options(request), every, context.actor
    )
    return _show_schedule(request.name, added)


async def delete_schedule(context: OperationContext, request: NamedSchedule) -> None:
    """Delete a schedule of a mirror. A run that it has started continues."""
    await context.registry.syncs.remove_schedule(request.name, request.schedule, context.actor)


_SYNCS = "/mirrors/{name}/syncs"
_SCHEDULES = "/mirrors/{name}/schedules"

OPERATIONS = (
    Operation("POST", _SYNCS, start_sync, ADMINS, (NotFoundError, ConflictError), 201),
    Operation("GET", _SYNCS, list_syncs, ADMINS, (NotFoundError, ConflictError)),
    Operation("GET", _SYNCS + "/{run}", get_sync, ADMINS, (NotFoundError, ConflictError)),
    Operation("DELETE", _SYNCS + "/{run}", cancel_sync, ADMINS, (NotFoundError, ConflictError)),
    Operation("GET", _SCHEDULES, list_schedules, ADMINS, (NotFoundError, ConflictError)),
    Operation("POST", _SCHEDULES, create_schedule, ADMINS, (NotFoundError, ConflictError), 201),
    Operation("DELETE", _SCHEDULES + "/{schedule}", delete_schedule, ADMINS, (NotFoundError,), 204),
)
