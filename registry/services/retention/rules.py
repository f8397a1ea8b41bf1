"""Management of retention rules, one repository pattern at a time."""

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, NotFoundError
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import rules, usage_of_tags
from registry.metadata.retention.rules import RetentionRuleRow
from registry.services.retention.conditions import Conditions
from registry.services.retention.plan import RetentionRule

__all__ = ["RetentionRule", "RetentionRules", "RuleState"]

_SECOND = 1_000_000


def find_active(row: RetentionRuleRow) -> RetentionRule:
    """Return the rules of the row that are in force. Disabled rules only keep."""
    rule = read_rule(row)
    return rule if row.enabled else rule.keep_only()


def read_rule(row: RetentionRuleRow) -> RetentionRule:
    """Return the rules of the row, or a rule without conditions if they were removed.

    Raises ConflictError if a newer version has written conditions that this version does not know:
    if it ignored one of them, it could drop what that condition keeps.
    """
    pattern = RepositoryPattern.parse(row.pattern)
    if row.conditions is None:
        return RetentionRule(pattern)
    try:
        conditions = msgspec.json.decode(row.conditions, type=Conditions)
    except msgspec.ValidationError as error:
        raise ConflictError(
            f"the retention rules for {pattern} are not those of this version, so nothing is "
            f"dropped: {error}; upgrade this server, or set the rules again"
        ) from error
    return RetentionRule(pattern, **conditions.values())


class RuleState(Struct, frozen=True):
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

        With `now`, they are enabled without a wait. Raises InputInvalidError if a value is
        invalid or there are no rules.
        """
        rule = rule.normalize()

        def work(tx: Transaction) -> RuleState:
            before = rules.find(tx, str(rule.pattern), lock=True)
            row = self._schedule(tx, rule, before, now=now)
            rules.put(tx, row)
            given = rule.list_given()
            record(tx, actor, Event.RETENTION_SET, row.pattern, **given, enabled=row.enabled)
            return _read_state(tx, row)

        return await self._db.write(work, actor=actor.name)

    def _schedule(
        self, tx: Transaction, rule: RetentionRule, before: RetentionRuleRow | None, *, now: bool
    ) -> RetentionRuleRow:
        """Return the row of the rules with its enabled flag and the end of its wait."""
        wanted = RetentionRuleRow(
            str(rule.pattern), msgspec.json.encode(rule.list_given()).decode()
        )
        if now or before is None:
            return replace(wanted, enabled=now and rule.drops)
        same = replace(wanted, enabled=before.enabled, waits_until=before.waits_until)
        if same == before:
            return before
        waits_until = usage_of_tags.read_now(tx) + self._interval
        return replace(wanted, enabled=before.enabled and rule.drops, waits_until=waits_until)

    async def enable(self, pattern: RepositoryPattern, actor: Actor) -> RuleState:
        """Enable the drop rules of a pattern, with immediate effect.

        Raises NotFoundError, and ConflictError for rules that only keep.
        """

        def work(tx: Transaction) -> RuleState:
            row = _find(tx, pattern)
            if not read_rule(row).drops:
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
            record(tx, actor, Event.RETENTION_DELETE, str(pattern))

        await self._db.write(work, actor=actor.name)


def _read_state(tx: Transaction, row: RetentionRuleRow) -> RuleState:
    is_over = row.waits_until is not None and row.waits_until <= usage_of_tags.read_now(tx)
    return RuleState(read_rule(row), row.enabled, None if is_over else row.waits_until)


def _find(tx: Transaction, pattern: RepositoryPattern) -> RetentionRuleRow:
    row = rules.find(tx, str(pattern), lock=True)
    if row is None or row.conditions is None:
        raise NotFoundError(f"no retention rules for {pattern}")
    return row


def _change(tx: Transaction, row: RetentionRuleRow, actor: Actor) -> RuleState:
    rules.put(tx, row)
    event = Event.RETENTION_ENABLE if row.enabled else Event.RETENTION_DISABLE
    record(tx, actor, event, row.pattern)
    return _read_state(tx, row)
