"""Rows of users."""

import uuid
from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import group_members, refresh_tokens, secrets, uploads, users

_u = users.c


class UserRow(Struct, frozen=True):
    """A user. `generation` changes whenever existing sign-ins must end."""

    id: int
    name: str
    generation: str
    admin: bool
    disabled: bool
    created_at: int
    namespace: bool = True


_COLUMNS = (
    _u.id,
    _u.name,
    _u.generation,
    _u.is_admin,
    _u.is_disabled,
    _u.created_at,
    _u.owns_namespace,
)


def _new_generation() -> str:
    return uuid.uuid4().hex


def find(tx: Transaction, name: str, *, lock: bool = False) -> UserRow | None:
    """Return the user. `lock` locks the row until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_u.name == name)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return UserRow(*row) if row else None


def list_page(tx: Transaction, n: int, last: str) -> list[UserRow]:
    """Return at most `n` users after `last`, by name."""
    query = sa.select(*_COLUMNS).where(_u.name > last).order_by(_u.name).limit(n)
    return [UserRow(*row) for row in tx.execute(query)]


def list_all(tx: Transaction) -> list[UserRow]:
    return [UserRow(*row) for row in tx.execute(sa.select(*_COLUMNS))]


def list_named(tx: Transaction, names: Collection[str]) -> list[UserRow]:
    return [UserRow(*row) for row in tx.execute(sa.select(*_COLUMNS).where(_u.name.in_(names)))]


def is_any(tx: Transaction) -> bool:
    return tx.execute(sa.select(_u.id).limit(1)).first() is not None


def is_other(tx: Transaction, user: UserRow) -> bool:
    """Return whether there is another user. Locks that user against removal."""
    query = sa.select(_u.id).where(_u.id != user.id).order_by(_u.id).limit(1)
    return tx.execute(query.with_for_update()).first() is not None


def is_other_admin(tx: Transaction, user: UserRow) -> bool:
    """Return whether another admin can sign in. An advisory lock serializes the callers."""
    tx.lock_name("admins")
    other = sa.select(_u.id).where(_u.id != user.id, _u.is_admin, ~_u.is_disabled).limit(1)
    return tx.execute(other).first() is not None


def find_password(tx: Transaction, name: str) -> str | None:
    """Return the hash of the user's password, or None if there is no such user or no password."""
    return tx.execute(sa.select(_u.password_hash).where(_u.name == name)).scalar_one_or_none()


def insert(
    tx: Transaction, name: str, password: str | None, *, admin: bool, namespace: bool = True
) -> bool:
    """Add a user. Returns False if the name is taken.

    `namespace` means that the user owns the repositories below the name.
    """
    statement = insert_into(users).values(
        name=name,
        password_hash=password,
        generation=_new_generation(),
        is_admin=admin,
        is_disabled=False,
        created_at=tx.now,
        owns_namespace=namespace,
    )
    added = tx.execute(
        statement.on_conflict_do_nothing(index_elements=[_u.name]).returning(_u.id)
    ).first()
    tx.change_policy(Part.USER, name)
    return added is not None


def set_password(tx: Transaction, user: UserRow, password: str) -> None:
    """Set a new password, which ends all existing sign-ins."""
    _update(tx, user, password_hash=password, generation=_new_generation())
    end_sessions(tx, user)


def rehash(tx: Transaction, name: str, old: str, new: str) -> None:
    """Store a better hash of the same password, unless the password was changed meanwhile."""
    query = sa.update(users).where(_u.name == name, _u.password_hash == old)
    tx.execute(query.values(password_hash=new))


def set_disabled(tx: Transaction, user: UserRow, *, disabled: bool) -> None:
    _update(tx, user, is_disabled=disabled, generation=_new_generation())
    end_sessions(tx, user)


def set_admin(tx: Transaction, user: UserRow, *, admin: bool) -> None:
    _update(tx, user, is_admin=admin)


def _update(tx: Transaction, user: UserRow, **values: object) -> None:
    tx.execute(sa.update(users).where(_u.id == user.id).values(**values))
    tx.change_policy(Part.USER, user.name)


def end_sessions(tx: Transaction, user: UserRow) -> None:
    """Delete the refresh tokens obtained with the user's password."""
    # A range, because SQLite's LIKE ignores case, and names that differ in case are different.
    credential = refresh_tokens.c.credential
    first, after = f"user:{user.name}:", f"user:{user.name};"  # the character after the colon
    tx.execute(sa.delete(refresh_tokens).where(credential >= first, credential < after))


def delete(tx: Transaction, user: UserRow) -> None:
    """Delete a user with all tokens and memberships.

    The user's upload sessions lose their owner.
    """
    tx.execute(sa.delete(group_members).where(group_members.c.user_id == user.id))
    ids = tx.execute(sa.delete(secrets).where(secrets.c.user_id == user.id).returning(secrets.c.id))
    gone = []
    for secret_id in ids.scalars():
        gone.append(f"secret:{secret_id}")
        tx.change_policy(Part.SECRET, secret_id)
    tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.credential.in_(gone)))
    end_sessions(tx, user)
    orphaned = sa.update(uploads).where(uploads.c.principal == user.name)
    tx.execute(orphaned.values(principal=f"removed:{user.generation}"))
    tx.execute(sa.delete(users).where(_u.id == user.id))
    tx.change_policy(Part.USER, user.name)
    tx.change_policy(Part.GROUPS, user.name)
