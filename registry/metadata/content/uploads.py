"""Rows of upload sessions."""

import operator
from collections.abc import Collection

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import (
    DatabaseClock,
    Row,
    Statement,
    bind,
    bind_limit,
    bind_now,
)
from registry.metadata.engine.transaction import RowChange, Transaction
from registry.metadata.tables import repositories, uploads
from registry.oci.names import RepositoryName
from storage.digest import Digest

_u, _r = uploads.c, repositories.c


class UploadRow(Struct, frozen=True):
    """An upload session.

    `offset` is the number of acknowledged bytes, and `prefix_digest` is their digest.
    `resume_state` is the state of the store. `claim_number` grows with each claim, if the store
    does not lock.
    """

    id: str
    repository: RepositoryName
    repository_generation: str | None
    principal: str
    algorithm: str
    offset: int
    prefix_digest: Digest | None
    store: str
    key_generation: str
    key: str | None
    resume_state: str | None = None
    claim_number: int = 0

    def belongs_to(self, repository: RepositoryRow | None) -> bool:
        """Return whether the repository is the session's own, or was created after the session."""
        generation = repository.generation if repository else None
        return self.repository_generation in {None, generation}


class ClaimState(Struct, frozen=True):
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


_NAMES = tuple(column.name for column in _COLUMNS)
_list_values = operator.attrgetter(*UploadRow.__struct_fields__)
_PROGRESS = ("offset", "prefix", "key", "parts", "generation")
_list_progress = operator.attrgetter(
    "offset", "prefix_digest", "key", "resume_state", "key_generation"
)

_id = sa.bindparam("upload_id", type_=_u.id.type)
_by_id = sa.select(*_COLUMNS).where(_u.id == _id)
_lease_end = DatabaseClock() + sa.bindparam("lease_us", type_=sa.BigInteger)
_update = sa.update(uploads).where(
    _u.id == _id, _u.claim == sa.bindparam("held_claim", type_=_u.claim.type)
)

_INSERT = Statement(
    sa.insert(uploads).values(**bind(*_NAMES), started_at=bind_now(), active_at=bind_now())
)
_FIND = Statement(_by_id)
_FIND_LOCKED = Statement(_by_id.with_for_update())
_FIND_OWN = Statement(
    _by_id.where(
        _u.repository == sa.bindparam("name"),
        _u.principal == sa.bindparam("principal"),
        sa.or_(
            _u.repository_generation.is_(None),
            _u.repository_generation
            == sa.select(_r.generation).where(_r.name == sa.bindparam("name")).scalar_subquery(),
        ),
    )
)
_ADVANCE = Statement(
    _update.where(
        _u.offset == sa.bindparam("old_offset", type_=_u.offset.type),
        _u.key.is_not_distinct_from(sa.bindparam("old_key", type_=_u.key.type)),
    ).values(**bind(*_PROGRESS), active_at=bind_now())
)
_SAVE = Statement(_update.values(bind("parts")))
_CLAIM = Statement(
    sa.update(uploads)
    .where(_u.id == _id, sa.or_(_u.claimed_until.is_(None), _u.claimed_until < DatabaseClock()))
    .values(claim=_u.claim + 1, claimed_until=_lease_end)
    .returning(*_COLUMNS)
)
_FIND_HELD = Statement(sa.select(_u.claim, _u.claimed_until).where(_u.id == _id))
_HOLD = Statement(_update.values(claimed_until=_lease_end))
_RELEASE = Statement(_update.values(claimed_until=None))
_DELETE = Statement(
    sa.delete(uploads)
    .where(_u.id == _id, _u.claim == sa.bindparam("held_claim", type_=_u.claim.type))
    .returning(*_COLUMNS)
)
_COUNT_OF = Statement(
    sa.select(sa.func.count()).select_from(
        sa.select(_u.id)
        .where(_u.principal == sa.bindparam("principal"), _u.active_at > 0)
        .limit(bind_limit())
        .subquery()
    )
)

_LIST_IDLE = Statement(
    sa.select(*_COLUMNS)
    .where(_u.active_at < sa.bindparam("before", type_=_u.active_at.type))
    .where(_u.store.in_(sa.bindparam("stores")))
    .order_by(_u.active_at)
    .limit(bind_limit())
)


def _made(row: Row | None) -> UploadRow | None:
    return UploadRow(*row) if row else None


def insert(tx: Transaction, row: UploadRow) -> None:
    tx.run(_INSERT, **dict(zip(_NAMES, _list_values(row), strict=True)))
    tx.row_changes.append(RowChange(row.id, None, row))


def find_own(
    tx: Transaction, name: RepositoryName, principal: str, upload_id: str
) -> UploadRow | None:
    """Return the session if the principal started it in this repository, which still exists.

    A repository that is created after the session is the session's repository, too.
    """
    return _made(tx.fetch_one(_FIND_OWN, upload_id=upload_id, name=name, principal=principal))


def find(tx: Transaction, upload_id: str, *, lock: bool = False) -> UploadRow | None:
    """Return the session. `lock` locks the row until the transaction ends."""
    return _made(tx.fetch_one(_FIND_LOCKED if lock else _FIND, upload_id=upload_id))


def advance(tx: Transaction, row: UploadRow, before: UploadRow) -> bool:
    """Save the acknowledged offset and the key under which the bytes may appear.

    Returns False if the session does not exist or was claimed again, or if another request has
    changed its offset or key since `before` was read.
    """
    values = dict(zip(_PROGRESS, _list_progress(row), strict=True))
    old = {"old_offset": before.offset, "old_key": before.key}
    if not tx.run(_ADVANCE, upload_id=row.id, held_claim=row.claim_number, **values, **old):
        _forget(tx, row.id)
        return False
    tx.row_changes.append(RowChange(row.id, before, row))
    return True


def _forget(tx: Transaction, upload_id: str) -> None:
    """Keep no row of the session in memory."""
    tx.row_changes.append(RowChange(upload_id, None, None))


def save(tx: Transaction, upload_id: str, claim: int, parts: str) -> bool:
    """Save the store's state between acknowledgements. Returns False as `advance` does."""
    _forget(tx, upload_id)
    return tx.run(_SAVE, upload_id=upload_id, held_claim=claim, parts=parts) > 0


def claim(tx: Transaction, upload_id: str, seconds: float) -> UploadRow | None:
    """Claim the session for `seconds`. Returns None if it does not exist or is claimed."""
    _forget(tx, upload_id)
    return _made(tx.fetch_one(_CLAIM, upload_id=upload_id, lease_us=int(seconds * 1_000_000)))


def find_held(tx: Transaction, upload_id: str) -> ClaimState | None:
    """Return the state of the session's claim, or None if the session does not exist."""
    row = tx.fetch_one(_FIND_HELD, upload_id=upload_id)
    return ClaimState(*row) if row else None


def hold(tx: Transaction, upload_id: str, claim: int, seconds: float) -> bool:
    """Extend a claim to `seconds` from now. Returns False as `advance` does."""
    lease_us = int(seconds * 1_000_000)
    _forget(tx, upload_id)
    return tx.run(_HOLD, upload_id=upload_id, held_claim=claim, lease_us=lease_us) > 0


def release(tx: Transaction, upload_id: str, claim: int) -> bool:
    """Release a claim. Returns False as `advance` does."""
    _forget(tx, upload_id)
    return tx.run(_RELEASE, upload_id=upload_id, held_claim=claim) > 0


def delete(tx: Transaction, upload_id: str, claim: int = 0) -> bool:
    """Delete the session. Returns False if it does not exist or was claimed again."""
    return take(tx, upload_id, claim) is not None


def take(tx: Transaction, upload_id: str, claim: int) -> UploadRow | None:
    """Delete the session and return it. Returns None where `delete` returns False."""
    _forget(tx, upload_id)
    return _made(tx.fetch_one(_DELETE, upload_id=upload_id, held_claim=claim))


def list_idle(tx: Transaction, stores: Collection[str], before: int, n: int) -> list[UploadRow]:
    """Return at most `n` sessions in these stores without activity since `before`.

    `before` is in microseconds.
    """
    rows = tx.fetch_all(_LIST_IDLE, stores=stores, before=before, n=n)
    return [UploadRow(*row) for row in rows]


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
    return int(tx.fetch_value(_COUNT_OF, principal=principal, n=most))


def find_idle(tx: Transaction, upload_id: str, before: int) -> UploadRow | None:
    """Return the session if it has had no activity since `before`, in microseconds."""
    query = sa.select(*_COLUMNS).where(_u.id == upload_id, _u.active_at < before)
    row = tx.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def list_present(tx: Transaction, upload_ids: list[str]) -> set[str]:
    """Return those of `upload_ids` that are sessions."""
    return set(tx.execute(sa.select(_u.id).where(_u.id.in_(upload_ids))).scalars())
