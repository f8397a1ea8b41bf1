"""Rows of the audit log, as they are stored."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import audit_log
from registry.services.access.audit import Audit

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


def list_rows(
    tx: Transaction, n: int, *, after: int = 0, since: int = 0, actor: str | None = None
) -> list[AuditRow]:
    """Return at most `n` events after the number `after`, oldest first.

    `since` is a time in microseconds: older events are left out.
    """
    query = sa.select(*_COLUMNS).where(_a.id > after, _a.at >= since)
    if actor is not None:
        query = query.where(_a.actor == actor)
    return [AuditRow(*row) for row in tx.execute(query.order_by(_a.id).limit(n))]


async def read_audit(source: Database | Audit, *, actor: str | None = None) -> list[AuditRow]:
    """Return all events, oldest first."""
    database = source._db if isinstance(source, Audit) else source
    return await database.read(lambda tx: list_rows(tx, 1000, actor=actor))
