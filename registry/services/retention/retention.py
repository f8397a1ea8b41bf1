"""Retention runs: the application of the rules, one repository at a time."""

import time
from enum import Enum, auto

from msgspec import Struct, field

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.principals import OPERATOR, RETENTION
from registry.clock import rfc3339
from registry.errors import ConflictError
from registry.metadata.content import manifests, repositories
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import immutable_tags
from registry.metadata.retention import rules as stored_rules
from registry.metadata.retention import run as stored_run
from registry.metadata.retention import usage_of_tags
from registry.metadata.retention.run import RunRow
from registry.metadata.retention.usage_of_tags import TagUse, UntaggedManifest
from registry.oci.names import RepositoryName, list_patterns
from registry.oci.references import Tag
from registry.services.content.removal import delete_manifest, delete_tag, find_protected_manifests
from registry.services.protection.protection import find_kept_tags
from registry.services.retention.planner import Plan, Planner
from registry.services.retention.rules import read_rule

_SECOND = 1_000_000

SLICE_SECONDS = 5.0
"""Duration of a slice of a run, in seconds. The drop or plan in progress is completed."""

_EVERYTHING = RepositoryPattern.parse("**")


class RunSlice(Struct):
    """A slice of a run: what it dropped, and the last repository that is done."""

    done: str
    tags: int = 0
    manifests: int = 0
    ended: bool = False

    @property
    def drops(self) -> int:
        return self.tags + self.manifests


class Status(Struct, frozen=True):
    """The last run and the due time of the next one, in microseconds.

    `due_at` is None if no rule is enabled or the registry is read-only. `now` is by the database's
    clock. `paused_until` is set if the clock has jumped.
    """

    run: RunRow | None
    due_at: int | None
    paused_until: int | None
    now: int

    @property
    def is_due(self) -> bool:
        return self.due_at is not None and self.due_at <= self.now


class _Outcome(Enum):
    DROPPED = auto()
    # The tag or manifest has changed or been used since the plan was made.
    CHANGED = auto()
    # The state that the plan is based on has changed.
    STALE = auto()


class _PlanSnapshot(Struct):
    """The state that the rest of a plan is based on.

    `head` is the last change that was checked for deletions by others. `gone` contains the tags
    that the plan has dropped.
    """

    head: int
    gone: set[str] = field(default_factory=set)


class Retention:
    """Application of the retention rules."""

    def __init__(
        self, database: Database, *, interval: float, grace: float, read_only: bool = False
    ) -> None:
        """Create the service.

        `interval` is in seconds, from the start of a run to the start of the next. `grace` is the
        number of seconds for which a manifest is not dropped after a push, tag or pull, and for
        which nothing is dropped after a clock jump. With `read_only`, nothing is dropped.
        """
        self._db = database
        self.interval = interval
        self.planner = Planner(database, grace=grace)
        self._read_only = read_only

    async def run(self, pattern: RepositoryPattern, last: str, actor: Actor) -> RunSlice:
        """Apply the rules now in matching repositories after the name `last`, in one slice.

        The result says where the next slice starts. Raises ConflictError if the registry is
        read-only, no matching rule is enabled, or the clock has jumped.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing is dropped")
        await self._db.read(lambda tx: _require_enabled(tx, pattern))
        now = await self._find_now()
        if now is None:
            raise ConflictError(await self._db.read(self._pause_message))
        await self._db.write(
            lambda tx: record(tx, actor, Event.RETENTION_RUN, str(pattern), after=last),
            actor=actor.name,
        )
        return await self._run(pattern, last, now)

    async def _find_now(self) -> int | None:
        """Return the reference time for ages, in microseconds, or None after a clock jump.

        A run uses this time throughout, so later clock jumps do not affect it.
        """
        until = await self.planner.clock_guard.cutoff()
        return None if until is None else until + self.planner.grace_us

    def _pause_message(self, tx: Transaction) -> str:
        until = rfc3339(self.planner.clock_guard.find_pause(tx) or usage_of_tags.read_now(tx))
        return f"the database clock has jumped, so nothing is dropped until {until}"

    async def get_status(self) -> Status:
        return await self._db.read(self._look)

    def _look(self, tx: Transaction) -> Status:
        run, now = stored_run.find(tx), usage_of_tags.read_now(tx)
        paused_until = self.planner.clock_guard.find_pause(tx)
        due_at: int | None = max(now, paused_until or now)
        if self._read_only or not stored_rules.is_any_enabled(tx):
            due_at = None
        # A run in the future was started before the clock was set back, so it does not count.
        elif run is not None and run.ended_at is not None and run.started_at <= now:
            due_at = max(run.started_at + int(self.interval * _SECOND), paused_until or 0)
        return Status(run, due_at, paused_until, now)

    async def is_due(self) -> bool:
        """Return whether a run is due or an unfinished run can be continued."""
        return (await self.get_status()).is_due

    async def work(self) -> int:
        """Run one slice of the due run.

        Returns the number of dropped tags and manifests, and at least 1 if the run is not finished.
        """
        status = await self.get_status()
        if not status.is_due:
            return 0
        now = await self._find_now()
        if now is None:
            return 0
        last = ""
        if status.run is None or status.run.ended_at is not None:
            await self._db.write(_start, actor=OPERATOR.name)
        else:
            last = status.run.done
        piece = await self._run(_EVERYTHING, last, now)
        await self._db.write(
            lambda tx: stored_run.save(
                tx, piece.done, piece.tags, piece.manifests, ended=piece.ended
            ),
            actor=OPERATOR.name,
        )
        return piece.drops or int(not piece.ended)

    async def _run(self, pattern: RepositoryPattern, last: str, now: int) -> RunSlice:
        piece = RunSlice(last)
        until = time.monotonic() + SLICE_SECONDS
        while names := await self.planner.list_names(pattern, piece.done):
            for name in names:
                if not await self._apply(RepositoryName(name), piece, now):
                    return piece
                piece.done = name
                if time.monotonic() > until:
                    return piece
        piece.ended = True
        return piece

    async def _apply(self, name: RepositoryName, piece: RunSlice, now: int) -> bool:
        """Apply the rules to the repository. Return whether it is done."""
        while True:
            before = piece.drops
            plan = await self.planner.plan(name, now)
            if plan is not None and not await self._carry_out(plan, piece):
                return False
            # Dropped manifests may have retained others, so plan again. Items in use wait for the
            # next run.
            if piece.drops == before:
                return True

    async def _carry_out(self, plan: Plan, piece: RunSlice) -> bool:
        """Execute a plan. Return False if it is no longer valid or takes too long."""
        until = time.monotonic() + SLICE_SECONDS
        basis = _PlanSnapshot(plan.head)
        for decision in plan.drops:
            item = decision.item
            outcome, basis.head = await self._db.write(
                lambda tx, item=item: self._drop(tx, plan, item, basis),  # type: ignore[misc]
                actor=RETENTION.name,
            )
            if outcome is _Outcome.DROPPED and isinstance(item, TagUse):
                basis.gone.add(item.name)
                piece.tags += 1
            elif outcome is _Outcome.DROPPED:
                piece.manifests += 1
            if outcome is _Outcome.STALE or time.monotonic() > until:
                return False
        return True

    def _drop(
        self, tx: Transaction, plan: Plan, item: TagUse | UntaggedManifest, basis: _PlanSnapshot
    ) -> tuple[_Outcome, int]:
        """Drop an item if it is unchanged. Return the outcome and the new `head` of the basis."""
        name = plan.repository.name
        repository = repositories.find(tx, name, lock=True)
        head = usage_of_tags.read_head(tx)
        deleted = usage_of_tags.list_deleted_tags(tx, name, basis.head) - basis.gone
        rules = stored_rules.list_of(tx, list_patterns(str(name)))
        # All other changes keep a tag at its rank or lower it.
        if repository != plan.repository or deleted or rules != plan.rules:
            return _Outcome.STALE, head
        if isinstance(item, TagUse):
            dropped = _drop_tag(tx, repository, item)
        else:
            dropped = _drop_manifest(tx, repository, item)
        return (_Outcome.DROPPED if dropped else _Outcome.CHANGED), head


def _start(tx: Transaction) -> None:
    """Start a run of the job."""
    stored_rules.forget_removed(tx, usage_of_tags.read_now(tx))
    stored_run.start(tx)


def _require_enabled(tx: Transaction, pattern: RepositoryPattern) -> None:
    """Raise ConflictError if rules match the repositories, but none of them may drop now."""
    rows = [
        row
        for row in stored_rules.list_all(tx)
        if RepositoryPattern.parse(row.pattern).intersect(pattern) is not None
        and read_rule(row).drops
    ]
    enabled = [row for row in rows if row.enabled]
    if rows and not enabled:
        first = rows[0].pattern
        raise ConflictError(
            f"the retention rules for {first} are not enabled, so nothing is dropped: "
            f"check moorage retention plan '{first}', then run moorage retention enable "
            f"'{first}'"
        )
    now = usage_of_tags.read_now(tx)
    if enabled and all((row.waits_until or 0) > now for row in enabled):
        row = enabled[0]
        raise ConflictError(
            f"the retention rules for {row.pattern} have changed, so nothing is dropped "
            f"until {rfc3339(row.waits_until or now)}; moorage retention enable "
            f"'{row.pattern}' ends the wait"
        )


def _drop_tag(tx: Transaction, repository: RepositoryRow, use: TagUse) -> bool:
    """Delete the tag unless it moved, was pulled or is protected. Return whether it was deleted."""
    if usage_of_tags.find_tag(tx, repository, use.name) != use:
        return False
    immutable_tags.lock(tx, shared=True)
    if find_kept_tags(tx, repository, [use]):
        return False
    return delete_tag(tx, repository, Tag(use.name))


def _drop_manifest(tx: Transaction, repository: RepositoryRow, untagged: UntaggedManifest) -> bool:
    """Delete the manifest like a client would. Return whether it was deleted.

    Does nothing if the manifest is referenced again, was pulled, or is protected.
    """
    if usage_of_tags.find_untagged(tx, repository, untagged.digest) != untagged:
        return False
    if find_protected_manifests(tx, repository, [untagged.digest]):
        return False
    row = manifests.find(tx, repository.name, untagged.digest)
    if row is None:
        return False
    delete_manifest(tx, repository, row)
    return True
