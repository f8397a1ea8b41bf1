"""Rows of grants: subject, pattern of repositories, actions."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import grants

_g = grants.c


class GrantRow(Struct, frozen=True):
    """A grant. `actions` is a comma-separated text."""

    id: int
    subject: str
    pattern: str
    actions: str
    created_at: int


_COLUMNS = (_g.id, _g.subject, _g.pattern, _g.actions, _g.created_at)


def find(tx: Transaction, subject: str, pattern: str) -> GrantRow | None:
    """Return the grant, with its row locked until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_g.subject == subject, _g.pattern == pattern)
    row = tx.execute(query.with_for_update()).one_or_none()
    return GrantRow(*row) if row else None


def find_by_id(tx: Transaction, grant_id: int) -> GrantRow | None:
    row = tx.execute(sa.select(*_COLUMNS).where(_g.id == grant_id)).one_or_none()
    return GrantRow(*row) if row else None


def list_page(tx: Transaction, n: int, last: int, subject: str | None = None) -> list[GrantRow]:
    """Return at most `n` grants after the ID `last`, optionally of one subject."""
    query = sa.select(*_COLUMNS).where(_g.id > last).order_by(_g.id).limit(n)
    if subject is not None:
        query = query.where(_g.subject == subject)
    return [GrantRow(*row) for row in tx.execute(query)]


def list_all(tx: Transaction) -> list[GrantRow]:
    return [GrantRow(*row) for row in tx.execute(sa.select(*_COLUMNS).order_by(_g.id))]


def list_numbered(tx: Transaction, ids: Collection[int]) -> list[GrantRow]:
    return [GrantRow(*row) for row in tx.execute(sa.select(*_COLUMNS).where(_g.id.in_(ids)))]


def put(tx: Transaction, subject: str, pattern: str, actions: str) -> GrantRow:
    """Set what the subject may do in the repositories of the pattern."""
    insert = insert_into(grants).values(
        subject=subject, pattern=pattern, actions=actions, created_at=tx.now
    )
    row = tx.execute(
        insert.on_conflict_do_update(
            index_elements=[_g.subject, _g.pattern], set_={"actions": insert.excluded.actions}
        ).returning(*_COLUMNS)
    ).one()
    tx.change_policy(Part.GRANT, row.id)
    return GrantRow(*row)


def delete(tx: Transaction, grant: GrantRow) -> None:
    tx.execute(sa.delete(grants).where(_g.id == grant.id))
    tx.change_policy(Part.GRANT, grant.id)


def delete_all_of(tx: Transaction, subject: str) -> None:
    """Delete all grants of a removed subject, so that a new subject of the same name gets none."""
    gone = sa.delete(grants).where(_g.subject == subject).returning(_g.id)
    for grant_id in tx.execute(gone).scalars():
        tx.change_policy(Part.GRANT, grant_id)
