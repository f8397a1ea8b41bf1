"""Rows of the audit log: sign-ins, issued tokens and changes of the access policy."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import audit_log

_a = audit_log.c


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One event. `at` is in microseconds; `detail` is JSON without secrets."""

    number: int
    at: int
    actor: str
    address: str
    request_id: str
    kind: str
    target: str
    detail: str


_COLUMNS = (
    _a.id,
    _a.at,
    _a.actor,
    _a.address,
    _a.request_id,
    _a.kind,
    _a.target,
    _a.detail,
)


def insert(
    tx: Transaction,
    *,
    actor: str,
    address: str,
    request_id: str,
    kind: str,
    target: str,
    detail: str,
    fold: str = "",
) -> None:
    """Add an event, or increase the count of an event with the same `fold`."""
    statement = tx.insert(audit_log).values(
        at=tx.now,
        actor=actor,
        address=address,
        request_id=request_id,
        kind=kind,
        target=target,
        detail=detail,
        merge_key=fold or None,
        count=1,
    )
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=[_a.merge_key],
            index_where=_a.merge_key.is_not(None),
            set_={"count": _a.count + 1},
        )
    )


def list_page(
    tx: Transaction, n: int, *, after: int = 0, since: int = 0, actor: str | None = None
) -> list[AuditRow]:
    """Return at most `n` events after the number `after`, oldest first.

    `since` is a time in microseconds: older events are left out.
    """
    query = sa.select(*_COLUMNS).where(_a.id > after, _a.at >= since)
    if actor is not None:
        query = query.where(_a.actor == actor)
    return [AuditRow(*row) for row in tx.execute(query.order_by(_a.id).limit(n))]


def delete_before(tx: Transaction, moment: int, n: int) -> int:
    """Delete at most `n` events before `moment`, in microseconds, and return their number."""
    oldest = sa.select(_a.id).where(_a.at < moment).order_by(_a.at).limit(n)
    return tx.execute(sa.delete(audit_log).where(_a.id.in_(oldest))).rowcount
