"""Retention rules: set, listed and removed, a pattern of repositories at a time."""

from dataclasses import asdict

from registry.auth.books import Actor, Event, note
from registry.auth.patterns import RepositoryPattern
from registry.errors import InputInvalidError, NotFoundError
from registry.metadata import retention_rules
from registry.metadata.database import Database
from registry.metadata.retention_rules import RuleRow
from registry.metadata.transaction import Transaction
from registry.oci.tag_patterns import TagPattern
from registry.services.retention_plan import NewestBy, RetentionRule

__all__ = ["NewestBy", "RetentionRule", "RetentionRules"]


def read_rule(row: RuleRow) -> RetentionRule:
    """The rules that the row holds."""
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


class RetentionRules:
    """The rules that there are."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_page(self, n: int, last: str = "") -> list[RetentionRule]:
        """The rules of at most `n` patterns after `last`, in byte order."""
        rows = await self._db.read(lambda tx: retention_rules.list_page(tx, n, last))
        return [read_rule(row) for row in rows]

    async def set(self, rule: RetentionRule, actor: Actor) -> None:
        """Set the rules of a pattern, in place of those it had; InputInvalidError for none."""
        if rule == RetentionRule(rule.pattern, newest_by=rule.newest_by):
            raise InputInvalidError("say what is to be kept or dropped")
        if rule.keep_newest is None and rule.newest_by is not NewestBy.PUSH:
            raise InputInvalidError("newest by what: that goes with how many are kept")
        row = _write_rule(rule)
        said = {k: v for k, v in asdict(row).items() if k != "pattern" and v not in {None, ""}}

        def work(tx: Transaction) -> None:
            retention_rules.put(tx, row)
            note(tx, actor, Event.RETENTION_SET, row.pattern, **said)

        await self._db.write(work, actor=actor.name)

    async def remove(self, pattern: RepositoryPattern, actor: Actor) -> None:
        """Remove the rules of a pattern; NotFoundError."""

        def work(tx: Transaction) -> None:
            if not retention_rules.delete(tx, str(pattern)):
                raise NotFoundError(f"there are no retention rules for {pattern}")
            note(tx, actor, Event.RETENTION_REMOVE, str(pattern))

        await self._db.write(work, actor=actor.name)
