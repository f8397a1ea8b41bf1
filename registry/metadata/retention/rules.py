"""Rows of retention rules: what is kept and dropped in the repositories of a pattern."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import asdict

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import retention_rules

_r = retention_rules.c


class RetentionRuleRow(Struct, frozen=True):
    """The rules of a pattern.

    `conditions` is JSON, which the services define; None is the rest of removed rules. Before
    `waits_until`, by the database's clock, nothing is dropped in the repositories of the pattern.
    """

    pattern: str
    conditions: str | None
    enabled: bool = False
    waits_until: int | None = None


_COLUMNS = (_r.pattern, _r.conditions, _r.enabled, _r.waits_until)
_IS_REMOVED = _r.conditions.is_(None)


def put(tx: Transaction, row: RetentionRuleRow) -> None:
    """Set the rules of the pattern, replacing its previous rules."""
    values = asdict(row)
    insert = insert_into(retention_rules).values(**values, changed_at=tx.now)
    changed = {name: insert.excluded[name] for name in (*values, "changed_at")}
    tx.execute(insert.on_conflict_do_update(index_elements=[_r.pattern], set_=changed))


def find(tx: Transaction, pattern: str, *, lock: bool = False) -> RetentionRuleRow | None:
    """Return the row of the pattern, which may be that of removed rules."""
    query = sa.select(*_COLUMNS).where(_r.pattern == pattern)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return RetentionRuleRow(*row) if row else None


def remove(tx: Transaction, pattern: str, waits_until: int) -> bool:
    """Remove the rules of the pattern. Returns False if there are none.

    Nothing is dropped in its repositories before `waits_until`, because other rules may drop what
    the removed rules kept.
    """
    changed = {"conditions": None, "enabled": False, "waits_until": waits_until}
    statement = sa.update(retention_rules).where(_r.pattern == pattern, ~_IS_REMOVED)
    return tx.execute(statement.values(**changed)).rowcount > 0


def forget_removed(tx: Transaction, now: int) -> None:
    """Delete the rows of removed rules whose waiting time is over."""
    tx.execute(sa.delete(retention_rules).where(_IS_REMOVED, _r.waits_until <= now))


def list_page(tx: Transaction, n: int, last: str) -> list[RetentionRuleRow]:
    """Return the rules of at most `n` patterns after `last`, in byte order."""
    query = sa.select(*_COLUMNS).where(_r.pattern > last, ~_IS_REMOVED)
    return [RetentionRuleRow(*row) for row in tx.execute(query.order_by(_r.pattern).limit(n))]


def is_any_enabled(tx: Transaction) -> bool:
    return tx.execute(sa.select(_r.pattern).where(_r.enabled).limit(1)).first() is not None


def list_all(tx: Transaction) -> list[RetentionRuleRow]:
    return [RetentionRuleRow(*row) for row in tx.execute(sa.select(*_COLUMNS).order_by(_r.pattern))]


def list_of(tx: Transaction, patterns: Collection[str]) -> list[RetentionRuleRow]:
    """Return the rules of those patterns that have rules, in byte order."""
    query = sa.select(*_COLUMNS).where(_r.pattern.in_(patterns)).order_by(_r.pattern)
    return [RetentionRuleRow(*row) for row in tx.execute(query)]
