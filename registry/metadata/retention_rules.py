"""Rows of retention rules: what is kept and what is dropped in the repositories of a pattern."""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from registry.metadata.tables import retention_rules
from registry.metadata.transaction import Transaction

_r = retention_rules.c


@dataclass(frozen=True, slots=True)
class RuleRow:
    """The rules of a pattern: `keep` and `drop` are patterns of tags between spaces, ages are
    microseconds, and what is None is no rule.
    """

    pattern: str
    keep: str
    keep_newest: int | None
    newest_by: str
    keep_per_minor: int | None
    drop: str
    drop_not_pulled: int | None
    drop_untagged: int | None


_COLUMNS = (
    _r.pattern,
    _r.keep,
    _r.keep_newest,
    _r.newest_by,
    _r.keep_per_minor,
    _r.drop,
    _r.drop_not_pulled,
    _r.drop_untagged,
)


def put(tx: Transaction, row: RuleRow) -> None:
    """Set the rules of the pattern, in place of those it had."""
    values = asdict(row)
    insert = tx.insert(retention_rules).values(**values, changed_at=tx.now)
    changed = {name: insert.excluded[name] for name in (*values, "changed_at")}
    tx.execute(insert.on_conflict_do_update(index_elements=[_r.pattern], set_=changed))


def delete(tx: Transaction, pattern: str) -> bool:
    """Remove the rules of the pattern; whether there were any."""
    gone = sa.delete(retention_rules).where(_r.pattern == pattern)
    return tx.execute(gone).rowcount > 0


def list_page(tx: Transaction, n: int, last: str) -> list[RuleRow]:
    """The rules of at most `n` patterns after `last`, in byte order."""
    query = sa.select(*_COLUMNS).where(_r.pattern > last).order_by(_r.pattern).limit(n)
    return [RuleRow(*row) for row in tx.execute(query)]


def list_all(tx: Transaction) -> list[RuleRow]:
    return [RuleRow(*row) for row in tx.execute(sa.select(*_COLUMNS).order_by(_r.pattern))]


def list_of(tx: Transaction, patterns: Collection[str]) -> list[RuleRow]:
    """Those of the patterns that have rules, in byte order."""
    query = sa.select(*_COLUMNS).where(_r.pattern.in_(patterns)).order_by(_r.pattern)
    return [RuleRow(*row) for row in tx.execute(query)]
