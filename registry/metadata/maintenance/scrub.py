"""The scrub's row: its progress in re-reading all content (docs/operate/check-and-repair.md)."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import repositories, scrub_state
from storage.digest import Digest

_s = scrub_state.c


class ScrubRow(Struct, frozen=True):
    """A pass over all manifests and blobs, which may be running.

    `last_blob` and `last_manifest_id` are its position. Times are in microseconds; `finished_at` is
    the end of the last complete pass. `damaged` counts blobs found missing or damaged. `unreadable`
    counts blobs that an available store failed to return.
    """

    is_running: bool
    started_at: int
    finished_at: int | None
    last_blob: Digest | None
    last_manifest_id: int | None
    blobs: int
    bytes: int
    damaged: int
    unreadable: int


_COLUMNS = (
    _s.is_running,
    _s.started_at,
    _s.finished_at,
    _s.last_blob,
    _s.last_manifest_id,
    _s.blobs,
    _s.bytes,
    _s.damaged,
    _s.unreadable,
)


def find(tx: Transaction) -> ScrubRow | None:
    row = tx.execute(sa.select(*_COLUMNS)).one_or_none()
    return ScrubRow(*row) if row else None


def find_birth(tx: Transaction) -> int | None:
    """Return the creation time of the oldest repository, in microseconds."""
    oldest = sa.select(sa.func.min(repositories.c.id)).scalar_subquery()
    query = sa.select(repositories.c.created_at).where(repositories.c.id == oldest)
    return tx.execute(query).scalar_one_or_none()


def begin(tx: Transaction) -> None:
    """Begin a pass, restarting one that is in progress."""
    fresh = {
        "is_running": True,
        "started_at": tx.now,
        "last_blob": None,
        "last_manifest_id": None,
        "blobs": 0,
        "bytes": 0,
        "damaged": 0,
        "unreadable": 0,
    }
    insert = insert_into(scrub_state).values(id=1, **fresh)
    tx.execute(insert.on_conflict_do_update(index_elements=[_s.id], set_=fresh))


def advance(tx: Transaction, before: ScrubRow, after: ScrubRow) -> bool:
    """Save the progress of a pass. Returns False if another process advanced or restarted it."""
    same = sa.and_(
        _s.is_running,
        _s.started_at == before.started_at,
        _s.last_blob.is_not_distinct_from(before.last_blob),
        _s.last_manifest_id.is_not_distinct_from(before.last_manifest_id),
    )
    changed = {column.name: getattr(after, column.name) for column in _COLUMNS}
    return tx.execute(sa.update(scrub_state).where(same).values(**changed)).rowcount > 0
