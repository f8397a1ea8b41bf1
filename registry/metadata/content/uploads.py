"""Rows of upload sessions."""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import repositories, uploads
from registry.oci.names import RepositoryName
from storage.digest import Digest

_u, _r = uploads.c, repositories.c


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload session.

    `offset` is the number of acknowledged bytes, and `prefix` is their digest. `parts` is the state
    of the store. `claim` grows with each claim, if the store does not lock.
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

    def belongs_to(self, repository: RepositoryRow | None) -> bool:
        """Return whether the repository is the session's own, or was created after the session."""
        generation = repository.generation if repository else None
        return self.repository_generation in {None, generation}


@dataclass(frozen=True, slots=True)
class ClaimState:
    """The latest claim on a session and its end in microseconds; None if it was released."""

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


def find_own(
    tx: Transaction, name: RepositoryName, principal: str, upload_id: str
) -> UploadRow | None:
    """Return the session if the principal started it in this repository, which still exists.

    A repository that is created after the session is the session's repository, too.
    """
    generation = sa.select(_r.generation).where(_r.name == name).scalar_subquery()
    query = sa.select(*_COLUMNS).where(
        _u.id == upload_id,
        _u.repository == name,
        _u.principal == principal,
        sa.or_(_u.repository_generation.is_(None), _u.repository_generation == generation),
    )
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def find(tx: Transaction, upload_id: str, *, lock: bool = False) -> UploadRow | None:
    """Return the session. `lock` locks the row until the transaction ends."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id)
    if lock:
        query = query.with_for_update()
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def advance(tx: Transaction, row: UploadRow, before: UploadRow | None = None) -> bool:
    """Save the acknowledged offset and the key under which the bytes may appear.

    Returns False if the session does not exist or was claimed again. With `before`, the row as
    read, it also returns False if another request has changed the offset or the key since.
    """
    values = {
        "offset": row.offset,
        "prefix": row.prefix,
        "key": row.key,
        "parts": row.parts,
        "generation": row.generation,
    }
    query = sa.update(uploads).where(_u.id == row.id, _u.claim == row.claim)
    if before is not None:
        query = query.where(_u.offset == before.offset, _u.key.is_not_distinct_from(before.key))
    return tx.execute(query.values(**values, active_at=tx.now)).rowcount > 0


def save(tx: Transaction, upload_id: str, claim: int, parts: str) -> bool:
    """Save the store's state between acknowledgements. Returns False as `advance` does."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query.values(parts=parts)).rowcount > 0


def claim(tx: Transaction, upload_id: str, seconds: float) -> UploadRow | None:
    """Claim the session for `seconds`. Returns None if it does not exist or is claimed."""
    now = tx.read_clock()
    free = sa.or_(_u.claimed_until.is_(None), _u.claimed_until < now)
    query = sa.update(uploads).where(_u.id == upload_id, free)
    values = {"claim": _u.claim + 1, "claimed_until": now + int(seconds * 1_000_000)}
    row = tx.execute(query.values(**values).returning(*_COLUMNS)).one_or_none()
    return UploadRow(*row) if row else None


def find_held(tx: Transaction, upload_id: str) -> ClaimState | None:
    """Return the state of the session's claim, or None if the session does not exist."""
    row = tx.execute(sa.select(_u.claim, _u.claimed_until).where(_u.id == upload_id)).one_or_none()
    return ClaimState(*row) if row else None


def hold(tx: Transaction, upload_id: str, claim: int, seconds: float) -> bool:
    """Extend a claim to `seconds` from now. Returns False as `advance` does."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    until = tx.read_clock() + int(seconds * 1_000_000)
    return tx.execute(query.values(claimed_until=until)).rowcount > 0


def release(tx: Transaction, upload_id: str, claim: int) -> bool:
    """Release a claim. Returns False as `advance` does."""
    query = sa.update(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query.values(claimed_until=None)).rowcount > 0


def delete(tx: Transaction, upload_id: str, claim: int = 0) -> bool:
    """Delete the session. Returns False if it does not exist or was claimed again."""
    query = sa.delete(uploads).where(_u.id == upload_id, _u.claim == claim)
    return tx.execute(query).rowcount > 0


def list_idle(tx: Transaction, stores: Collection[str], before: int, n: int) -> list[UploadRow]:
    """Return at most `n` sessions in these stores without activity since `before`.

    `before` is in microseconds.
    """
    query = sa.select(*_COLUMNS).where(_u.active_at < before, _u.store.in_(stores))
    return [UploadRow(*row) for row in tx.execute(query.order_by(_u.active_at).limit(n))]


def list_by_prefix_digest(tx: Transaction, digest: Digest, n: int) -> list[UploadRow]:
    """Return at most `n` sessions whose acknowledged bytes have the digest. Reads all sessions."""
    query = sa.select(*_COLUMNS).where(_u.prefix == digest).order_by(_u.id).limit(n)
    return [UploadRow(*row) for row in tx.execute(query)]


def count_in(tx: Transaction, store: str) -> int:
    """Return the number of sessions whose bytes are in the store."""
    query = sa.select(sa.func.count()).select_from(uploads).where(_u.store == store)
    return int(tx.execute(query).scalar_one())


def count_of(tx: Transaction, principal: str, most: int) -> int:
    """Return the number of sessions of the principal, up to `most`.

    Sessions of deleted repositories, which expire at once, are not counted, because their clients
    cannot cancel them.
    """
    some = sa.select(_u.id).where(_u.principal == principal, _u.active_at > 0).limit(most)
    return int(tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def find_idle(tx: Transaction, upload_id: str, before: int) -> UploadRow | None:
    """Return the session if it has had no activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id, _u.active_at < before)
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def list_present(tx: Transaction, upload_ids: list[str]) -> set[str]:
    """Return those of `upload_ids` that are sessions."""
    return set(tx.execute(sa.select(_u.id).where(_u.id.in_(upload_ids))).scalars())
