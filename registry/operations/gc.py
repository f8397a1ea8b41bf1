"""Garbage collection."""

import time

from registry.clock import rfc3339
from registry.errors import NotFoundError
from registry.operations.context import OperationContext
from registry.operations.fields import (
    DigestText,
    NoInput,
    RequestModel,
    ResponseModel,
    Timestamp,
    write_timestamp,
)
from registry.operations.operation import ADMINS, Operation
from registry.services.gc.batch import GcReport
from registry.services.gc.explain import Step
from storage.digest import Digest, DigestInvalidError

_BATCH_SECONDS = 5.0
"""The approximate duration of one batch, in seconds: the caller waits for the response."""


class UnreadableManifest(ResponseModel, frozen=True):
    """A manifest whose stored bytes do not match its digest."""

    repository: str
    digest: str


class GcStatus(ResponseModel, frozen=True):
    """The status of garbage collection.

    - `queued`: the number of queued candidates, by kind.
    - `due`: how many of them are due now.
    - `in_grace`: how many become due later, the first at `next_due_at`.
    - `kept_untagged`: the number of untagged manifests that the rules keep.
    - `last_clock_check_at`: when the collector last checked the clock.
    - `paused_until`: the end of a pause after the clock jumped by `clock_jump_seconds`.
    - `in_window`: whether the time of day allows collection now.
    - `unreadable`: the first manifests that cannot be read. Nothing is collected in their
      repositories.
    """

    queued: dict[str, int]
    due: int
    in_grace: int
    next_due_at: Timestamp | None
    kept_untagged: int
    last_clock_check_at: Timestamp | None
    paused_until: Timestamp | None
    clock_jump_seconds: float
    in_window: bool
    unreadable: list[UnreadableManifest]


class CollectedContent(ResponseModel, frozen=True):
    """The content deleted from a repository: manifests, and blobs with their size in bytes.

    Other repositories may still have the blobs.
    """

    repository: str
    manifests: int
    blobs: int
    bytes: int


class GcRun(ResponseModel, frozen=True):
    """The content that was deleted, or that would be.

    `examined` is the number of examined candidates. `longest_lock_seconds` is the longest time
    that any lock was held. `has_more` is true if there is more to do.
    """

    examined: int
    manifests: int
    blobs: int
    bytes: int
    repositories: list[CollectedContent]
    longest_lock_seconds: float
    has_more: bool


class PathStep(ResponseModel, frozen=True):
    """A step of a path: a tag, or an index, subject or manifest that refers to the next step.

    If a path does not begin with a tag, the `kind` of its first step says why the next step is
    kept: `hold` (its reason is in `name`), `untagged_rule`, `grace_period`,
    `unreadable_manifest`, `not_queued`, or `none` if it will be deleted.
    """

    kind: str
    repository: str
    name: str
    until: Timestamp | None


class UploadSession(ResponseModel, frozen=True):
    """An upload session that contains the same bytes."""

    id: str
    repository: str
    principal: str


class PendingDeletion(ResponseModel, frozen=True):
    """A storage key that is scheduled for deletion.

    `blocked_by_backup` is true while a backup delays the deletion.
    """

    store: str
    key: str
    not_before: Timestamp
    blocked_by_backup: bool


class GcExplanation(ResponseModel, frozen=True):
    """The paths that keep a blob or a manifest. `has_more` is true if there are further paths."""

    digest: str
    paths: list[list[PathStep]]
    has_more: bool
    upload_sessions: list[UploadSession]
    pending_deletions: list[PendingDeletion]


class RunGc(RequestModel, frozen=True):
    """Options of a run. `dry_run` returns what a complete run would delete, and deletes nothing."""

    dry_run: bool = False


class ExplainDigest(RequestModel, frozen=True):
    """The digest of a blob or a manifest."""

    digest: DigestText


async def get_gc_status(context: OperationContext, request: NoInput) -> GcStatus:
    """Return the status of garbage collection."""
    del request
    status = await context.registry.collector.get_status()
    return GcStatus(
        queued=status.queued,
        due=status.due,
        in_grace=status.in_grace,
        next_due_at=write_timestamp(status.next_due_at),
        kept_untagged=status.kept_untagged,
        last_clock_check_at=write_timestamp(status.last_clock_check_at),
        paused_until=write_timestamp(status.paused_until),
        clock_jump_seconds=status.clock_jump_seconds,
        in_window=status.in_window,
        unreadable=[
            UnreadableManifest(str(name), str(digest)) for name, digest in status.unreadable
        ],
    )


async def run_gc(context: OperationContext, request: RunGc) -> GcRun:
    """Delete one batch of what is due, at any time of day, with its bytes.

    Repeat the request while `has_more` is true.
    """
    if request.dry_run:
        return _show(await context.registry.collector.plan(), has_more=False)
    report, until = GcReport(), time.monotonic() + _BATCH_SECONDS
    has_more = await context.registry.collector.collect(report, lambda: time.monotonic() < until)
    swept = await context.registry.deletions.sweep()
    return _show(report, has_more=has_more or swept > 0)


async def explain_digest(context: OperationContext, request: ExplainDigest) -> GcExplanation:
    """Explain why a blob or a manifest is kept."""
    try:
        digest = Digest.parse(request.digest)
    except DigestInvalidError as error:
        raise NotFoundError("no blob or manifest has this digest") from error
    found = await context.registry.explainer.explain(digest)
    return GcExplanation(
        digest=str(found.digest),
        paths=[[_show_step(step) for step in path] for path in found.paths],
        has_more=found.has_more,
        upload_sessions=[
            UploadSession(s.id, s.repository, s.principal) for s in found.upload_sessions
        ],
        pending_deletions=[
            PendingDeletion(d.store, d.key, rfc3339(d.not_before), d.blocked_by_backup)
            for d in found.pending_deletions
        ],
    )


def _show(report: GcReport, *, has_more: bool) -> GcRun:
    repositories = [
        CollectedContent(name, freed.manifests, freed.blobs, freed.bytes)
        for name, freed in sorted(report.repositories.items())
    ]
    return GcRun(
        examined=report.examined,
        manifests=report.manifests,
        blobs=report.blobs,
        bytes=report.bytes,
        repositories=repositories,
        longest_lock_seconds=round(report.longest_lock_seconds, 4),
        has_more=has_more,
    )


def _show_step(step: Step) -> PathStep:
    return PathStep(step.kind, step.repository, step.name, write_timestamp(step.until))


OPERATIONS = (
    Operation("GET", "/gc", get_gc_status, ADMINS),
    Operation("POST", "/gc/run", run_gc, ADMINS),
    Operation("GET", "/gc/why/{digest}", explain_digest, ADMINS, (NotFoundError,)),
)
