"""Rows of refresh tokens, each valid for one credential and service until revoked."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import refresh_tokens

_t = refresh_tokens.c

MOST = 100
"""Refresh tokens per credential; more than that, and the least recently used are deleted.

Each `docker login` creates a token, and a client that forgets its token does not report it.
"""


class RefreshTokenRow(Struct, frozen=True):
    """A refresh token. `hash` is a keyed hash; `used_at` is in microseconds."""

    id: str
    hash: str
    credential: str
    service: str
    client: str
    used_at: int


_COLUMNS = (_t.id, _t.hash, _t.credential, _t.service, _t.client, _t.used_at)


def find(tx: Transaction, token_id: str) -> RefreshTokenRow | None:
    row = tx.execute(sa.select(*_COLUMNS).where(_t.id == token_id)).one_or_none()
    return RefreshTokenRow(*row) if row else None


def insert(
    tx: Transaction, token_id: str, hash_: str, *, credential: str, service: str, client: str
) -> None:
    tx.execute(
        sa.insert(refresh_tokens).values(
            id=token_id,
            hash=hash_,
            credential=credential,
            service=service,
            client=client,
            created_at=tx.now,
            used_at=tx.now,
        )
    )
    kept = (
        sa.select(_t.id)
        .where(_t.credential == credential)
        .order_by(_t.used_at.desc(), _t.id)
        .limit(MOST)
    )
    tx.execute(sa.delete(refresh_tokens).where(_t.credential == credential, _t.id.not_in(kept)))


def set_used(tx: Transaction, token_id: str) -> None:
    tx.execute(sa.update(refresh_tokens).where(_t.id == token_id).values(used_at=tx.now))
