"""The row of the scrub: how far the re-reading of everything is (docs/check-and-repair.md)."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import repositories, scrub
from registry.metadata.transaction import Transaction
from storage.digest import Digest

_s = scrub.c


@dataclass(frozen=True, slots=True)
class ScrubRow:
    """A pass over all manifests and blobs, that `running` or not. `last` and `last_manifest`: where
    it is. Times in microseconds; `finished_at` is of the last whole pass. `damaged`: blobs found
    missing or damaged; `unreadable`: blobs that the store would not give, though it was there.
    """

    running: bool
    started_at: int
    finished_at: int | None
    last: Digest | None
    last_manifest: int | None
    blobs: int
    bytes: int
    damaged: int
    unreadable: int


_COLUMNS = (
    _s.running,
    _s.started_at,
    _s.finished_at,
    _s.last,
    _s.last_manifest,
    _s.blobs,
    _s.bytes,
    _s.damaged,
    _s.unreadable,
)


def find(tx: Transaction) -> ScrubRow | None:
    row = tx.execute(sa.select(*_COLUMNS)).one_or_none()
    return ScrubRow(*row) if row else None


def find_birth(tx: Transaction) -> int | None:
    """When the oldest repository was made, in microseconds."""
    oldest = sa.select(sa.func.min(repositories.c.id)).scalar_subquery()
    query = sa.select(repositories.c.created_at).where(repositories.c.id == oldest)
    return tx.execute(query).scalar_one_or_none()


def begin(tx: Transaction) -> None:
    """Begin a pass, where there is one under way from its beginning."""
    fresh = {
        "running": True,
        "started_at": tx.now,
        "last": None,
        "last_manifest": None,
        "blobs": 0,
        "bytes": 0,
        "damaged": 0,
        "unreadable": 0,
    }
    insert = tx.insert(scrub).values(id=1, **fresh)
    tx.execute(insert.on_conflict_do_update(index_elements=[_s.id], set_=fresh))


def advance(tx: Transaction, before: ScrubRow, after: ScrubRow) -> bool:
    """Move a pass on; False if another has moved it, or begun it anew."""
    same = sa.and_(
        _s.running,
        _s.started_at == before.started_at,
        _s.last.is_not_distinct_from(before.last),
        _s.last_manifest.is_not_distinct_from(before.last_manifest),
    )
    changed = {column.name: getattr(after, column.name) for column in _COLUMNS}
    return tx.execute(sa.update(scrub).where(same).values(**changed)).rowcount > 0
