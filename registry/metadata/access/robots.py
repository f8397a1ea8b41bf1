"""Rows of robot accounts. Their secrets are rows of `secrets`."""

import uuid
from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import refresh_tokens, robots, secrets, uploads

_r = robots.c


class RobotRow(Struct, frozen=True):
    """A robot. Times are in microseconds; `expires_at` is None for a robot that does not expire."""

    id: int
    name: str
    generation: str
    created_at: int
    expires_at: int | None


_COLUMNS = (_r.id, _r.name, _r.generation, _r.created_at, _r.expires_at)


def find(tx: Transaction, name: str, *, lock: bool = False) -> RobotRow | None:
    """Return the robot. `lock` locks the row until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_r.name == name)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return RobotRow(*row) if row else None


def list_page(tx: Transaction, n: int, last: str) -> list[RobotRow]:
    """Return at most `n` robots after `last`, by name."""
    query = sa.select(*_COLUMNS).where(_r.name > last).order_by(_r.name).limit(n)
    return [RobotRow(*row) for row in tx.execute(query)]


def list_all(tx: Transaction) -> list[RobotRow]:
    return [RobotRow(*row) for row in tx.execute(sa.select(*_COLUMNS))]


def list_named(tx: Transaction, names: Collection[str]) -> list[RobotRow]:
    return [RobotRow(*row) for row in tx.execute(sa.select(*_COLUMNS).where(_r.name.in_(names)))]


def insert(tx: Transaction, name: str, expires_at: int | None) -> RobotRow | None:
    """Add a robot. Returns None if the name is taken."""
    statement = insert_into(robots).values(
        name=name, generation=uuid.uuid4().hex, created_at=tx.now, expires_at=expires_at
    )
    row = tx.execute(
        statement.on_conflict_do_nothing(index_elements=[_r.name]).returning(*_COLUMNS)
    ).first()
    tx.change_policy(Part.ROBOT, name)
    return RobotRow(*row) if row else None


def set_expiry(tx: Transaction, robot: RobotRow, expires_at: int | None) -> None:
    tx.execute(sa.update(robots).where(_r.id == robot.id).values(expires_at=expires_at))
    tx.change_policy(Part.ROBOT, robot.name)


def delete(tx: Transaction, robot: RobotRow, principal: str) -> None:
    """Delete a robot and its secrets.

    The upload sessions of `principal`, the robot's name in session rows, lose their owner.
    """
    ids = tx.execute(
        sa.delete(secrets).where(secrets.c.robot_id == robot.id).returning(secrets.c.id)
    )
    gone = []
    for secret_id in ids.scalars():
        gone.append(f"secret:{secret_id}")
        tx.change_policy(Part.SECRET, secret_id)
    gone.append(f"robot:{robot.name}:{robot.generation}")
    tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.credential.in_(gone)))
    orphaned = sa.update(uploads).where(uploads.c.principal == principal)
    tx.execute(orphaned.values(principal=f"removed:{robot.generation}"))
    tx.execute(sa.delete(robots).where(_r.id == robot.id))
    tx.change_policy(Part.ROBOT, robot.name)
