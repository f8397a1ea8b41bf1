"""Rows of the audit log: sign-ins, issued tokens and changes of the access policy."""

import sqlalchemy as sa

from registry.metadata.engine.statements import Statement, bind, bind_now, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import audit_log

_a = audit_log.c

_INSERT = Statement(
    insert_into(audit_log)
    .values(
        **bind("actor", "address", "request_id", "kind", "target", "detail", "merge_key"),
        at=bind_now(),
        count=sa.literal(1),
    )
    .on_conflict_do_update(
        index_elements=[_a.merge_key],
        index_where=_a.merge_key.is_not(None),
        set_={"count": _a.count + 1},
    )
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
    tx.run(
        _INSERT,
        actor=actor,
        address=address,
        request_id=request_id,
        kind=kind,
        target=target,
        detail=detail,
        merge_key=fold or None,
    )


def delete_before(tx: Transaction, moment: int, n: int) -> int:
    """Delete at most `n` events before `moment`, in microseconds, and return their number."""
    oldest = sa.select(_a.id).where(_a.at < moment).order_by(_a.at).limit(n)
    return tx.execute(sa.delete(audit_log).where(_a.id.in_(oldest))).rowcount
