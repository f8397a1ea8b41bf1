"""Runs and schedules of syncs, as admins see them."""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.errors import ConflictError, InputInvalidError, NotFoundError
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirrors, sync_runs, sync_schedules
from registry.metadata.mirrors.sync_runs import SyncRunRow, SyncState
from registry.metadata.mirrors.sync_schedules import SyncScheduleRow
from registry.services.syncs.options import SyncOptions
from registry.services.syncs.report import SyncCounts, SyncReport

__all__ = ["RunRequest", "SyncRun", "SyncSchedule", "SyncState", "Syncs", "encode_scheduled"]

SHORTEST_INTERVAL_S = 60.0
MOST_SCHEDULES = 100

_SECOND = 1_000_000


class RunRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON of a run: its options, and whether it only makes a plan."""

    options: SyncOptions
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class SyncRun:
    """A run. Times are in microseconds."""

    id: int
    mirror: str
    schedule_id: int | None
    request: RunRequest
    state: SyncState
    counts: SyncCounts
    report: SyncReport
    created_by: str
    created_at: int
    started_at: int | None
    ended_at: int | None

    @classmethod
    def of_row(cls, row: SyncRunRow) -> "SyncRun":
        """Read a row. Raises ConflictError if a newer version has written it."""
        try:
            return cls(
                row.id,
                row.mirror,
                row.schedule_id,
                msgspec.json.decode(row.options, type=RunRequest),
                row.state,
                msgspec.json.decode(row.progress, type=SyncCounts),
                msgspec.json.decode(row.report, type=SyncReport),
                row.created_by,
                row.created_at,
                row.started_at,
                row.ended_at,
            )
        except msgspec.ValidationError as error:
            raise ConflictError(
                f"run {row.id} was not written by this version ({error}); upgrade this server"
            ) from error


@dataclass(frozen=True, slots=True)
class SyncSchedule:
    """A schedule. Times are in microseconds. `last` is its last run."""

    id: int
    options: SyncOptions
    every_s: float
    next_at: int
    created_by: str
    created_at: int
    last: SyncRun | None


class Syncs:
    """Management of runs and schedules. Workers carry the runs out."""

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        """Create the service. With `read_only`, no run is added."""
        self._db = database
        self._read_only = read_only

    async def request(
        self, mirror: str, options: SyncOptions, actor: Actor, *, is_dry: bool
    ) -> SyncRun:
        """Add a run, which the next free worker starts.

        Raises NotFoundError, InputInvalidError, and ConflictError if the registry is read-only.
        """
        self._require_writable()
        request = RunRequest(options=options.normalize(), is_dry=is_dry)

        def work(tx: Transaction) -> SyncRunRow:
            _require_mirror(tx, mirror)
            if not is_dry:
                record(tx, actor, Event.MIRROR_SYNC, mirror, **_describe(options))
            return sync_runs.insert(tx, mirror, None, _encode(request))

        return SyncRun.of_row(await self._db.write(work, actor=actor.name))

    async def get(self, mirror: str, number: int) -> SyncRun:
        """Return a run. Raises NotFoundError."""
        row = await self._db.read(lambda tx: sync_runs.find(tx, mirror, number))
        if row is None:
            raise _unknown_run(mirror, number)
        return SyncRun.of_row(row)

    async def list_runs(self, mirror: str, last: int | None, n: int) -> list[SyncRun]:
        """Return at most `n` runs before the run `last`, the latest first. Raises NotFoundError."""

        def work(tx: Transaction) -> list[SyncRunRow]:
            _require_mirror(tx, mirror)
            return sync_runs.list_of(tx, mirror, last, n)

        return [SyncRun.of_row(row) for row in await self._db.read(work)]

    async def cancel(self, mirror: str, number: int, actor: Actor) -> SyncRun:
        """Cancel a run. The copied images stay. Raises NotFoundError and ConflictError."""

        def work(tx: Transaction) -> SyncRunRow:
            row = sync_runs.find(tx, mirror, number)
            if row is None:
                raise _unknown_run(mirror, number)
            if not sync_runs.cancel(tx, mirror, number):
                raise ConflictError(f"run {number} has ended already: {row.state}")
            return sync_runs.find(tx, mirror, number) or row

        return SyncRun.of_row(await self._db.write(work, actor=actor.name))

    async def add_schedule(
        self, mirror: str, options: SyncOptions, every_s: float, actor: Actor
    ) -> SyncSchedule:
        """Add a schedule, whose first run is due at once.

        Raises NotFoundError, InputInvalidError and ConflictError.
        """
        self._require_writable()
        if not every_s >= SHORTEST_INTERVAL_S:
            raise InputInvalidError(f"every: at least {SHORTEST_INTERVAL_S:g} s are required")
        if options.removals is not None:
            raise InputInvalidError("removals: a schedule cannot know them in advance")
        options = options.normalize()

        def work(tx: Transaction) -> SyncScheduleRow:
            _require_mirror(tx, mirror)
            known = sync_schedules.list_of(tx, mirror)
            if len(known) >= MOST_SCHEDULES:
                raise ConflictError(f"{mirror} has {MOST_SCHEDULES} schedules, which is the limit")
            if any(row.options == _encode(options) for row in known):
                raise ConflictError(f"{mirror} has a schedule with these options; remove it first")
            record(tx, actor, Event.MIRROR_SCHEDULE, mirror, **_describe(options), every_s=every_s)
            return sync_schedules.insert(tx, mirror, _encode(options), round(every_s * _SECOND))

        return _read_schedule(await self._db.write(work, actor=actor.name), None)

    async def remove_schedule(self, mirror: str, number: int, actor: Actor) -> None:
        """Remove a schedule. A run that it has started continues. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            if not sync_schedules.delete(tx, mirror, number):
                raise NotFoundError(f"no schedule {number} of {mirror[:80]}")
            record(tx, actor, Event.MIRROR_UNSCHEDULE, mirror, schedule=number)

        await self._db.write(work, actor=actor.name)

    async def list_schedules(self, mirror: str) -> list[SyncSchedule]:
        """Return the schedules of a mirror. Raises NotFoundError."""

        def work(tx: Transaction) -> list[tuple[SyncScheduleRow, SyncRunRow | None]]:
            _require_mirror(tx, mirror)
            return [
                (row, sync_runs.find_latest(tx, mirror, row.id))
                for row in sync_schedules.list_of(tx, mirror)
            ]

        return [_read_schedule(*each) for each in await self._db.read(work)]

    def _require_writable(self) -> None:
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be copied into it")


def encode_scheduled(row: SyncScheduleRow) -> str:
    """Return the JSON of a run of a schedule."""
    return _encode(RunRequest(options=msgspec.json.decode(row.options, type=SyncOptions)))


def _read_schedule(row: SyncScheduleRow, last: SyncRunRow | None) -> SyncSchedule:
    return SyncSchedule(
        row.id,
        msgspec.json.decode(row.options, type=SyncOptions),
        row.every / _SECOND,
        row.next_at,
        row.created_by,
        row.created_at,
        None if last is None else SyncRun.of_row(last),
    )


def _require_mirror(tx: Transaction, name: str) -> None:
    if mirrors.find(tx, name) is None:
        raise NotFoundError(f"no mirror {name[:80]}")


def _unknown_run(mirror: str, number: int) -> NotFoundError:
    return NotFoundError(f"no run {number} of {mirror[:80]}")


def _encode(value: Struct) -> str:
    return msgspec.json.encode(value).decode()


def _describe(options: SyncOptions) -> dict[str, Any]:
    """Return the options in the details of an event."""
    return {
        "repositories": list(options.repositories),
        "tags": list(options.tags),
        "prune": options.prune,
    }
