"""Rows of the public halves of token signing keys."""

from enum import StrEnum

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.tables import signing_keys

_k = signing_keys.c


class KeyState(StrEnum):
    """State of a signing key."""

    ACTIVE = "active"
    """New tokens are signed with it."""
    RETIRED = "retired"
    """Tokens signed with it are valid until they expire."""
    REVOKED = "revoked"
    """Tokens signed with it are rejected."""


class SigningKeyRow(Struct, frozen=True):
    """A key. `jwk` is JSON; times are in microseconds."""

    kid: str
    jwk: str
    state: KeyState
    created_at: int
    changed_at: int


_COLUMNS = (_k.kid, _k.jwk, _k.state, _k.created_at, _k.changed_at)


def list_all(tx: Transaction) -> list[SigningKeyRow]:
    """Return all keys, oldest first."""
    found = tx.execute(sa.select(*_COLUMNS).order_by(_k.created_at, _k.kid))
    return [SigningKeyRow(kid, jwk, KeyState(s), *times) for kid, jwk, s, *times in found]


def insert(tx: Transaction, kid: str, jwk: str) -> None:
    """Add a key as the active one, and retire the previous one."""
    active = sa.update(signing_keys).where(_k.state == KeyState.ACTIVE.value)
    tx.execute(active.values(state=KeyState.RETIRED.value, changed_at=tx.now))
    tx.execute(
        sa.insert(signing_keys).values(
            kid=kid, jwk=jwk, state=KeyState.ACTIVE.value, created_at=tx.now, changed_at=tx.now
        )
    )
    tx.change_policy(Part.KEYS)


def revoke(tx: Transaction, kid: str) -> bool:
    """Revoke the key. Returns False if there is no such key."""
    query = sa.update(signing_keys).where(_k.kid == kid)
    tx.change_policy(Part.KEYS)
    changed = {"state": KeyState.REVOKED.value, "changed_at": tx.now}
    return tx.execute(query.values(**changed)).rowcount > 0


def delete_retired(tx: Transaction, before: int) -> list[str]:
    """Delete keys that have not been active since `before`, and return their IDs."""
    old = sa.and_(_k.state != KeyState.ACTIVE.value, _k.changed_at < before)
    gone = list(tx.execute(sa.delete(signing_keys).where(old).returning(_k.kid)).scalars())
    if gone:
        tx.change_policy(Part.KEYS)
    return gone
