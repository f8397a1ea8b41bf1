"""Rows of secrets created by the registry: personal access tokens and robot secrets."""

from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.access.robots import RobotRow
from registry.metadata.access.users import UserRow
from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import refresh_tokens, robots, secrets, users

_s = secrets.c


class SecretRow(Struct, frozen=True):
    """A secret. `hash` is a keyed hash; `scopes` is JSON. Times are in microseconds."""

    id: str
    user: str | None
    robot: str | None
    name: str
    hash: str
    scopes: str | None
    created_at: int
    expires_at: int | None
    used_at: int | None


_SELECT = (
    sa.select(
        _s.id,
        users.c.name,
        robots.c.name,
        _s.name,
        _s.hash,
        _s.scopes,
        _s.created_at,
        _s.expires_at,
        _s.used_at,
    )
    .outerjoin_from(secrets, users, _s.user_id == users.c.id)
    .outerjoin(robots, _s.robot_id == robots.c.id)
    .order_by(_s.name, _s.created_at, _s.id)
)


def list_all(tx: Transaction) -> list[SecretRow]:
    return [SecretRow(*row) for row in tx.execute(_SELECT)]


def list_numbered(tx: Transaction, ids: Collection[str]) -> list[SecretRow]:
    return [SecretRow(*row) for row in tx.execute(_SELECT.where(_s.id.in_(ids)))]


def list_of_user(tx: Transaction, user: UserRow) -> list[SecretRow]:
    return [SecretRow(*row) for row in tx.execute(_SELECT.where(_s.user_id == user.id))]


def count_of_user(tx: Transaction, user: UserRow) -> int:
    query = sa.select(sa.func.count()).select_from(secrets).where(_s.user_id == user.id)
    return int(tx.execute(query).scalar_one())


def list_of_robot(tx: Transaction, robot: RobotRow) -> list[SecretRow]:
    return [SecretRow(*row) for row in tx.execute(_SELECT.where(_s.robot_id == robot.id))]


def insert_for_user(
    tx: Transaction,
    user: UserRow,
    *,
    secret_id: str,
    name: str,
    hash_: str,
    scopes: str | None,
    expires_at: int | None,
) -> bool:
    """Add a personal access token. Returns False if the user has one of this name."""
    statement = insert_into(secrets).values(
        id=secret_id,
        user_id=user.id,
        name=name,
        hash=hash_,
        scopes=scopes,
        created_at=tx.now,
        expires_at=expires_at,
    )
    added = tx.execute(
        statement.on_conflict_do_nothing(index_elements=[_s.user_id, _s.name]).returning(_s.id)
    ).first()
    tx.change_policy(Part.SECRET, secret_id)
    return added is not None


def insert_for_robot(tx: Transaction, robot: RobotRow, secret_id: str, hash_: str) -> None:
    tx.execute(
        sa.insert(secrets).values(
            id=secret_id, robot_id=robot.id, name="", hash=hash_, created_at=tx.now
        )
    )
    tx.change_policy(Part.SECRET, secret_id)


def expire_of_robot(tx: Transaction, robot: RobotRow, at: int) -> None:
    """Let the robot's secrets expire at `at`, unless they expire earlier."""
    later = sa.or_(_s.expires_at.is_(None), _s.expires_at > at)
    query = sa.update(secrets).where(_s.robot_id == robot.id, later)
    for secret_id in tx.execute(query.values(expires_at=at).returning(_s.id)).scalars():
        tx.change_policy(Part.SECRET, secret_id)


def delete_of_user(tx: Transaction, user: UserRow, name: str) -> bool:
    """Revoke a personal access token. Returns False if there is none."""
    query = sa.delete(secrets).where(_s.user_id == user.id, _s.name == name).returning(_s.id)
    secret_id = tx.execute(query).scalar_one_or_none()
    if secret_id is None:
        return False
    credential = refresh_tokens.c.credential
    tx.execute(sa.delete(refresh_tokens).where(credential == f"secret:{secret_id}"))
    tx.change_policy(Part.SECRET, secret_id)
    return True


def delete_expired(tx: Transaction, before: int, user: UserRow | None = None) -> int:
    """Delete secrets that expired before `before` and return their number.

    `user` restricts this to the secrets of one user.
    """
    query = sa.delete(secrets).where(_s.expires_at < before)
    if user is not None:
        query = query.where(_s.user_id == user.id)
    ids = tx.execute(query.returning(_s.id)).scalars()
    gone = [f"secret:{secret_id}" for secret_id in ids]
    tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.credential.in_(gone)))
    return len(gone)


def set_used(tx: Transaction, secret_id: str) -> None:
    tx.execute(sa.update(secrets).where(_s.id == secret_id).values(used_at=tx.now))
