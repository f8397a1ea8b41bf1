"""Rows of upload sessions (design D3)."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import uploads
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from storage.digest import Digest

_u = uploads.c


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A session. `offset` in bytes: what was acknowledged. `prefix`: the digest of that much."""

    id: str
    repository: RepositoryName
    repository_generation: str | None
    principal: str
    algorithm: str
    offset: int
    prefix: Digest | None
    store: str
    generation: str
    key: str | None


_COLUMNS = (
    _u.id,
    _u.repository,
    _u.repository_generation,
    _u.principal,
    _u.algorithm,
    _u.offset,
    _u.prefix,
    _u.store,
    _u.generation,
    _u.key,
)


def insert(tx: Transaction, row: UploadRow) -> None:
    values = {column.name: getattr(row, column.name) for column in _COLUMNS}
    tx.execute(sa.insert(uploads).values(**values, claim=0, started_at=tx.now, active_at=tx.now))


def find(tx: Transaction, upload_id: str, *, lock: bool = False) -> UploadRow | None:
    """The session. `lock` holds the row until the end of the transaction."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def advance(
    tx: Transaction, upload_id: str, *, offset: int, prefix: Digest | None, key: str | None
) -> bool:
    """Acknowledge `offset` bytes and name the key they may appear under; False: no such session."""
    query = sa.update(uploads).where(_u.id == upload_id)
    values = {"offset": offset, "prefix": prefix, "key": key, "active_at": tx.now}
    return tx.execute(query.values(**values)).rowcount > 0


def delete(tx: Transaction, upload_id: str) -> bool:
    """Remove the session; whether there was one."""
    return tx.execute(sa.delete(uploads).where(_u.id == upload_id)).rowcount > 0


def list_idle(tx: Transaction, before: int, n: int) -> list[UploadRow]:
    """At most `n` sessions without activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.active_at < before).order_by(_u.active_at).limit(n)
    return [UploadRow(*row) for row in tx.execute(query)]


def find_idle(tx: Transaction, upload_id: str, before: int) -> UploadRow | None:
    """The session, if it is without activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id, _u.active_at < before)
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def list_present(tx: Transaction, upload_ids: list[str]) -> set[str]:
    """Those of `upload_ids` that are sessions."""
    return set(tx.execute(sa.select(_u.id).where(_u.id.in_(upload_ids))).scalars())
