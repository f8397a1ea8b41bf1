"""Management of retention rules, one repository pattern at a time."""

from dataclasses import asdict, dataclass, replace

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, InputInvalidError, NotFoundError
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import rules, usage_of_tags
from registry.metadata.retention.rules import RuleRow
from registry.oci.tag_patterns import TagPattern
from registry.services.retention.plan import NewestBy, RetentionRule

__all__ = ["NewestBy", "RetentionRule", "RetentionRules", "RuleState"]

_SECOND = 1_000_000
_UNSAID = {"pattern", "enabled", "waits_until"}


def find_active(row: RuleRow) -> RetentionRule:
    """Return the rules of the row that are in force. Disabled rules only keep."""
    rule = read_rule(row)
    return rule if row.enabled else keep_only(rule)


def keep_only(rule: RetentionRule) -> RetentionRule:
    """Return the keep rules without the drop rules."""
    return replace(rule, drop=(), drop_not_pulled=None, drop_untagged=None)


def read_rule(row: RuleRow) -> RetentionRule:
    """Return the rules of the row."""
    return RetentionRule(
        pattern=RepositoryPattern.parse(row.pattern),
        keep=tuple(TagPattern.parse(text) for text in row.keep.split()),
        keep_newest=row.keep_newest,
        newest_by=NewestBy(row.newest_by),
        keep_per_minor=row.keep_per_minor,
        drop=tuple(TagPattern.parse(text) for text in row.drop.split()),
        drop_not_pulled=row.drop_not_pulled,
        drop_untagged=row.drop_untagged,
    )


def _write_rule(rule: RetentionRule) -> RuleRow:
    return RuleRow(
        pattern=str(rule.pattern),
        keep=" ".join(map(str, rule.keep)),
        keep_newest=rule.keep_newest,
        newest_by=rule.newest_by.value,
        keep_per_minor=rule.keep_per_minor,
        drop=" ".join(map(str, rule.drop)),
        drop_not_pulled=rule.drop_not_pulled,
        drop_untagged=rule.drop_untagged,
    )


@dataclass(frozen=True, slots=True)
class RuleState:
    """The rules of a pattern with their state.

    `waits_until` is the time in microseconds from which enabled rules drop, or None.
    """

    rule: RetentionRule
    enabled: bool
    waits_until: int | None


class RetentionRules:
    """Management of retention rules.

    New rules drop nothing until they are enabled. If rules change or are removed, nothing is
    dropped in the repositories of their pattern for one interval. This leaves time to look at the
    plan, because rules of another pattern may drop what the old rules kept.
    """

    def __init__(self, database: Database, *, interval: float) -> None:
        """Create the service. `interval` is in seconds."""
        self._db = database
        self._interval = round(interval * _SECOND)

    async def list_page(self, n: int, last: str = "") -> list[RuleState]:
        """Return the rules of at most `n` patterns after `last`, in byte order."""
        return await self._db.read(
            lambda tx: [_read_state(tx, row) for row in rules.list_page(tx, n, last)]
        )

    async def set(self, rule: RetentionRule, actor: Actor, *, now: bool = False) -> RuleState:
        """Set the rules of a pattern, replacing its previous rules.

        With `now`, they are enabled without a wait. Raises InputInvalidError if there are no rules.
        """
        if rule == RetentionRule(rule.pattern, newest_by=rule.newest_by):
            raise InputInvalidError("no rules given: set at least one of the keep or drop options")
        if rule.keep_newest is None and rule.newest_by is not NewestBy.PUSH:
            raise InputInvalidError("`by` requires `keep_newest`")
        wanted = _write_rule(rule)
        said = {k: v for k, v in asdict(wanted).items() if k not in _UNSAID and v not in {None, ""}}

        def work(tx: Transaction) -> RuleState:
            before = rules.find(tx, wanted.pattern, lock=True)
            row = self._schedule(tx, wanted, before, now=now)
            rules.put(tx, row)
            record(tx, actor, Event.RETENTION_SET, row.pattern, **said, enabled=row.enabled)
            return _read_state(tx, row)

        return await self._db.write(work, actor=actor.name)

    def _schedule(
        self, tx: Transaction, wanted: RuleRow, before: RuleRow | None, *, now: bool
    ) -> RuleRow:
        """Return the row with its enabled flag and the end of its wait."""
        if now or before is None:
            return replace(wanted, enabled=now and wanted.drops)
        same = replace(wanted, enabled=before.enabled, waits_until=before.waits_until)
        if same == before:
            return before
        waits_until = usage_of_tags.read_now(tx) + self._interval
        return replace(wanted, enabled=before.enabled and wanted.drops, waits_until=waits_until)

    async def enable(self, pattern: RepositoryPattern, actor: Actor) -> RuleState:
        """Enable the drop rules of a pattern, with immediate effect.

        Raises NotFoundError, and ConflictError for rules that only keep.
        """

        def work(tx: Transaction) -> RuleState:
            row = _find(tx, pattern)
            if not row.drops:
                raise ConflictError(
                    f"the retention rules for {pattern} drop nothing, so they need not be "
                    "enabled: add a drop rule first"
                )
            return _change(tx, replace(row, enabled=True, waits_until=None), actor)

        return await self._db.write(work, actor=actor.name)

    async def disable(self, pattern: RepositoryPattern, actor: Actor) -> RuleState:
        """Disable the drop rules of a pattern. Raises NotFoundError.

        Its keep rules stay in force.
        """
        return await self._db.write(
            lambda tx: _change(tx, replace(_find(tx, pattern), enabled=False), actor),
            actor=actor.name,
        )

    async def remove(self, pattern: RepositoryPattern, actor: Actor) -> None:
        """Remove the rules of a pattern. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            _find(tx, pattern)
            rules.remove(tx, str(pattern), usage_of_tags.read_now(tx) + self._interval)
            record(tx, actor, Event.RETENTION_REMOVE, str(pattern))

        await self._db.write(work, actor=actor.name)


def _read_state(tx: Transaction, row: RuleRow) -> RuleState:
    is_over = row.waits_until is not None and row.waits_until <= usage_of_tags.read_now(tx)
    return RuleState(read_rule(row), row.enabled, None if is_over else row.waits_until)


def _find(tx: Transaction, pattern: RepositoryPattern) -> RuleRow:
    row = rules.find(tx, str(pattern), lock=True)
    if row is None or read_rule(row) == RetentionRule(pattern):
        raise NotFoundError(f"no retention rules for {pattern}")
    return row


def _change(tx: Transaction, row: RuleRow, actor: Actor) -> RuleState:
    rules.put(tx, row)
    event = Event.RETENTION_ENABLE if row.enabled else Event.RETENTION_DISABLE
    record(tx, actor, event, row.pattern)
    return _read_state(tx, row)
