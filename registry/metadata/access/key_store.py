"""Key store in the database: private keys that replicas share, stored encrypted."""

import sqlalchemy as sa

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import private_keys

_v = private_keys.c


def find(tx: Transaction, name: str) -> bytes | None:
    return tx.execute(sa.select(_v.value).where(_v.name == name)).scalar_one_or_none()


def insert(tx: Transaction, name: str, value: bytes) -> None:
    """Store `value`, unless another process has stored one before."""
    statement = insert_into(private_keys).values(name=name, value=value)
    tx.execute(statement.on_conflict_do_nothing(index_elements=[_v.name]))


def delete(tx: Transaction, name: str) -> None:
    tx.execute(sa.delete(private_keys).where(_v.name == name))
