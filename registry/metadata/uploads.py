"""Rows of upload sessions (design D3)."""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import uploads
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from storage.digest import Digest

_u = uploads.c


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A session. `offset` in bytes: what was acknowledged. `prefix`: the digest of that much.
    `parts` is the store's own. `claim` grows with each claim, where rows are what is claimed.
    """

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
    parts: str | None = None
    claim: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """The latest claim to a session, and until when it holds, in microseconds; None: given back."""

    claim: int
    until: int | None


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
    _u.parts,
    _u.claim,
)


def insert(tx: Transaction, row: UploadRow) -> None:
    values = {column.name: getattr(row, column.name) for column in _COLUMNS}
    tx.execute(sa.insert(uploads).values(**values, started_at=tx.now, active_at=tx.now))


def find(tx: Transaction, upload_id: str, *, lock: bool = False) -> UploadRow | None:
    """The session. `lock` holds the row until the end of the transaction."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def advance(tx: Transaction, row: UploadRow) -> bool:
    """Acknowledge the row's offset, and name the key its bytes may appear under; False: there is
    no such session, or it was claimed again.
    """
    values = {
        "offset": row.offset,
        "prefix": row.prefix,
        "key": row.key,
        "parts": row.parts,
        "generation": row.generation,
    }
    query = sa.update(uploads).where(_u.id == row.id, _u.claim == row.claim)
    return tx.execute(query.values(**values, active_at=tx.now)).rowcount > 0


def save(tx: Transaction, upload_id: str, claim: int, parts: str) -> bool:
    """Write what is the store's own between acknowledgements; False as `advance`."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query.values(parts=parts)).rowcount > 0


def claim(tx: Transaction, upload_id: str, seconds: float) -> UploadRow | None:
    """Claim the session for so long; None: there is none, or another holds it."""
    now = tx.read_clock()
    free = sa.or_(_u.held_until.is_(None), _u.held_until < now)
    query = sa.update(uploads).where(_u.id == upload_id, free)
    values = {"claim": _u.claim + 1, "held_until": now + int(seconds * 1_000_000)}
    row = tx.execute(query.values(**values).returning(*_COLUMNS)).one_or_none()
    return UploadRow(*row) if row else None


def find_held(tx: Transaction, upload_id: str) -> Held | None:
    """Who holds the session; None: there is none."""
    row = tx.execute(sa.select(_u.claim, _u.held_until).where(_u.id == upload_id)).one_or_none()
    return Held(*row) if row else None


def hold(tx: Transaction, upload_id: str, claim: int, seconds: float) -> bool:
    """Hold on to a claim for so long from now; False as `advance`."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    until = tx.read_clock() + int(seconds * 1_000_000)
    return tx.execute(query.values(held_until=until)).rowcount > 0


def release(tx: Transaction, upload_id: str, claim: int) -> bool:
    """Let another claim the session; False as `advance`."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query.values(held_until=None)).rowcount > 0


def delete(tx: Transaction, upload_id: str, claim: int = 0) -> bool:
    """Remove the session; whether there was one, and not claimed again."""
    query = sa.delete(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query).rowcount > 0


def list_idle(tx: Transaction, stores: Collection[str], before: int, n: int) -> list[UploadRow]:
    """At most `n` sessions in these stores without activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.active_at < before, _u.store.in_(stores))
    return [UploadRow(*row) for row in tx.execute(query.order_by(_u.active_at).limit(n))]


def list_with(tx: Transaction, digest: Digest, n: int) -> list[UploadRow]:
    """At most `n` sessions whose bytes have the digest so far. It looks at every session."""
    query = sa.select(*_COLUMNS).where(_u.prefix == digest).order_by(_u.id).limit(n)
    return [UploadRow(*row) for row in tx.execute(query)]


def count_in(tx: Transaction, store: str) -> int:
    """How many sessions have their bytes in the store."""
    query = sa.select(sa.func.count()).select_from(uploads).where(_u.store == store)
    return int(tx.execute(query).scalar_one())


def count_of(tx: Transaction, principal: str, most: int) -> int:
    """How many sessions the principal has, up to `most`. Those that expire at once, because their
    repository is gone, are not counted: nobody can cancel them.
    """
    some = sa.select(_u.id).where(_u.principal == principal, _u.active_at > 0).limit(most)
    return int(tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def find_idle(tx: Transaction, upload_id: str, before: int) -> UploadRow | None:
    """The session, if it is without activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id, _u.active_at < before)
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def list_present(tx: Transaction, upload_ids: list[str]) -> set[str]:
    """Those of `upload_ids` that are sessions."""
    return set(tx.execute(sa.select(_u.id).where(_u.id.in_(upload_ids))).scalars())
