"""Rows of legal holds, which protect a manifest against every deletion."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import DatabaseClock, Statement
from registry.metadata.engine.transaction import CandidateKind, Transaction, in_chunks
from registry.metadata.tables import holds, repositories
from registry.oci.names import RepositoryName
from storage.digest import Digest

_h = holds.c

SECOND = 1_000_000


class HoldRow(Struct, frozen=True):
    """A hold. Times are in microseconds.

    `expires_at` is by the database's clock; None means that the hold does not expire.
    """

    id: int
    repository: RepositoryName
    digest: Digest
    reason: str
    created_by: str
    created_at: int
    expires_at: int | None


def _select() -> sa.Select[*tuple[Any, ...]]:
    return sa.select(
        _h.id,
        repositories.c.name,
        _h.digest,
        _h.reason,
        _h.created_by,
        _h.created_at,
        _h.expires_at,
    ).join(repositories, repositories.c.id == _h.repository_id)


def _is_over(clock: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return _h.expires_at <= sa.select(clock).scalar_subquery()


def _is_in_force(clock: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return sa.or_(_h.expires_at.is_(None), sa.not_(_is_over(clock)))


_IN_REPOSITORY = _h.repository_id == sa.bindparam("repository")

_LIST_OF = Statement(
    _select()
    .where(_IN_REPOSITORY, _h.digest.in_(sa.bindparam("digests")))
    .where(_is_in_force(DatabaseClock()))
)
_DROP_OVER = sa.delete(holds).where(_IN_REPOSITORY, _is_over(DatabaseClock()))
_DROP_OVER_IN = Statement(_DROP_OVER)
_DROP_OVER_OF = Statement(_DROP_OVER.where(_h.digest == sa.bindparam("digest")))


def insert(
    tx: Transaction, repository_id: int, digest: Digest, reason: str, life: float | None
) -> HoldRow:
    """Hold a manifest for `life` seconds, or until the hold is removed if `life` is None.

    The caller has locked the manifest against removal.
    """
    expires_at = None if life is None else tx.read_clock() + int(life * SECOND)
    query = (
        sa.insert(holds)
        .values(
            repository_id=repository_id,
            digest=digest,
            reason=reason,
            created_by=tx.actor,
            created_at=tx.now,
            expires_at=expires_at,
        )
        .returning(_h.id)
    )
    made = tx.execute(query).scalar_one()
    return HoldRow(*tx.execute(_select().where(_h.id == made)).one())


def find(tx: Transaction, hold_id: int) -> HoldRow | None:
    row = tx.execute(_select().where(_h.id == hold_id)).one_or_none()
    return HoldRow(*row) if row else None


def list_page(tx: Transaction, n: int, last: int) -> list[HoldRow]:
    """Return at most `n` holds after the ID `last`."""
    query = _select().where(_h.id > last).order_by(_h.id).limit(n)
    return [HoldRow(*row) for row in tx.execute(query)]


def list_of(tx: Transaction, repository_id: int, digests: Collection[Digest]) -> list[HoldRow]:
    """Return the active holds of the manifests, oldest first."""
    found: list[HoldRow] = []
    for chunk in in_chunks(digests):
        rows = tx.fetch_all(_LIST_OF, repository=repository_id, digests=chunk)
        found += [HoldRow(*row) for row in rows]
    return sorted(found, key=lambda row: row.id)


def list_held(tx: Transaction, repository_id: int) -> list[Digest]:
    """Return the manifests of the repository that have an active hold."""
    query = sa.select(_h.digest).where(
        _h.repository_id == repository_id, _is_in_force(tx.read_clock())
    )
    return list(tx.execute(query.distinct()).scalars())


def is_held(
    tx: Transaction, repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Return the condition that the manifest of the query has an active hold."""
    mine = sa.and_(_h.repository_id == repository_id, _h.digest == digest)
    return sa.exists().where(mine, _is_in_force(tx.read_clock()))


def find_any(tx: Transaction, repository_id: int) -> HoldRow | None:
    """Return an active hold in the repository, if there is one."""
    query = _select().where(_h.repository_id == repository_id, _is_in_force(tx.read_clock()))
    row = tx.execute(query.order_by(_h.id).limit(1)).one_or_none()
    return HoldRow(*row) if row else None


def delete(tx: Transaction, hold_id: int) -> bool:
    """Delete a hold and queue its manifest for garbage collection.

    Returns False if there is none.
    """
    gone = sa.delete(holds).where(_h.id == hold_id).returning(_h.repository_id, _h.digest)
    row = tx.execute(gone).one_or_none()
    if row is None:
        return False
    tx.queue_for_gc((row[0], CandidateKind.MANIFEST, row[1]))
    return True


def list_over(tx: Transaction, n: int) -> list[HoldRow]:
    """Return at most `n` expired holds."""
    query = _select().where(_is_over(tx.read_clock())).order_by(_h.expires_at).limit(n)
    return [HoldRow(*row) for row in tx.execute(query)]


def drop_over(tx: Transaction, repository_id: int, digest: Digest | None = None) -> None:
    """Delete the expired holds of a manifest that is removed, or of the whole repository."""
    if digest is None:
        tx.run(_DROP_OVER_IN, repository=repository_id)
    else:
        tx.run(_DROP_OVER_OF, repository=repository_id, digest=digest)
