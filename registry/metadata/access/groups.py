"""Rows of groups and their members."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.access.users import UserRow
from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import group_members, groups, users

_g = groups.c
_m = group_members.c


class GroupRow(Struct, frozen=True):
    """A group of users."""

    id: int
    name: str
    created_at: int


_COLUMNS = (_g.id, _g.name, _g.created_at)


def find(tx: Transaction, name: str, *, lock: bool = False) -> GroupRow | None:
    """Return the group. `lock` locks the row until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_g.name == name)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return GroupRow(*row) if row else None


def list_page(tx: Transaction, n: int, last: str) -> list[GroupRow]:
    """Return at most `n` groups after `last`, by name."""
    query = sa.select(*_COLUMNS).where(_g.name > last).order_by(_g.name).limit(n)
    return [GroupRow(*row) for row in tx.execute(query)]


def insert(tx: Transaction, name: str) -> bool:
    """Add a group. Returns False if the name is taken."""
    statement = insert_into(groups).values(name=name, created_at=tx.now)
    added = tx.execute(
        statement.on_conflict_do_nothing(index_elements=[_g.name]).returning(_g.id)
    ).first()
    tx.change_policy(Part.NOTHING)
    return added is not None


def delete(tx: Transaction, group: GroupRow) -> None:
    for name in list_members(tx, group):
        tx.change_policy(Part.GROUPS, name)
    tx.execute(sa.delete(group_members).where(_m.group_id == group.id))
    tx.execute(sa.delete(groups).where(_g.id == group.id))
    tx.change_policy(Part.NOTHING)


def list_members(tx: Transaction, group: GroupRow) -> list[str]:
    """Return the users in the group, by name."""
    query = sa.select(users.c.name).join(group_members, _m.user_id == users.c.id)
    return list(tx.execute(query.where(_m.group_id == group.id).order_by(users.c.name)).scalars())


def list_memberships(
    tx: Transaction, users_named: Collection[str] | None = None
) -> list[tuple[str, str]]:
    """Return all pairs of user and group, optionally only of the named users."""
    query = (
        sa.select(users.c.name, _g.name)
        .join_from(group_members, users, _m.user_id == users.c.id)
        .join(groups, _m.group_id == _g.id)
    )
    if users_named is not None:
        query = query.where(users.c.name.in_(users_named))
    return [(user, group) for user, group in tx.execute(query)]


def add_member(tx: Transaction, group: GroupRow, user: UserRow) -> bool:
    """Add the user to the group. Returns False if the user was already a member."""
    statement = insert_into(group_members).values(group_id=group.id, user_id=user.id)
    added = tx.execute(
        statement.on_conflict_do_nothing(index_elements=[_m.group_id, _m.user_id]).returning(
            _m.user_id
        )
    ).first()
    tx.change_policy(Part.GROUPS, user.name)
    return added is not None


def remove_member(tx: Transaction, group: GroupRow, user: UserRow) -> bool:
    """Remove the user from the group. Returns False if the user was not a member."""
    query = sa.delete(group_members).where(_m.group_id == group.id, _m.user_id == user.id)
    tx.change_policy(Part.GROUPS, user.name)
    return tx.execute(query).rowcount > 0
