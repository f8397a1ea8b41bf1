"""One-time backfill of the garbage collection queue with content that is older than the queue."""

from typing import Any

import sqlalchemy as sa

from registry.metadata.engine.transaction import NO_REPOSITORY, CandidateKind, Transaction
from registry.metadata.gc import retainers, state
from registry.metadata.tables import TEXT, blobs, manifests, repository_blobs
from storage.digest import Digest

PAGE = 500
"""Rows per step."""

_WAY = {
    CandidateKind.LINK: repository_blobs,
    CandidateKind.MANIFEST: manifests,
    CandidateKind.BLOB: blobs,
}


def step(tx: Transaction) -> bool:
    """Run one step of the backfill. Returns False if it is complete.

    The collector's row has the position: a kind, a repository ID and a digest, the last one read.
    """
    place = state.find(tx).backfill_cursor
    if place is None:
        return False
    words = (place or f"{next(iter(_WAY))} {NO_REPOSITORY} ").split(" ")
    kind, last = CandidateKind(words[0]), (int(words[1]), words[2])
    rows = _list_after(tx, kind, *last)
    for repository_id, digest, kept in rows:
        if not kept:
            tx.queue_for_gc((repository_id, kind, digest))
    if len(rows) == PAGE:
        goal: str | None = f"{kind} {rows[-1][0]} {rows[-1][1]}"
    else:
        kinds = list(_WAY)
        rest = kinds[kinds.index(kind) + 1 :]
        goal = f"{rest[0]} {NO_REPOSITORY} " if rest else None
    state.record_backfill(tx, goal)
    return True


def _list_after(
    tx: Transaction, kind: CandidateKind, repository_id: int, digest: str
) -> list[tuple[int, Digest, bool]]:
    """Return the rows of the next page, each with whether it has a retainer."""
    table = _WAY[kind]
    own: sa.ColumnElement[Any] = table.c.digest
    home: sa.ColumnElement[Any] = sa.literal(NO_REPOSITORY)
    after = sa.type_coerce(own, TEXT) > digest
    order = [own]
    if kind is not CandidateKind.BLOB:
        home = table.c.repository_id
        after = sa.tuple_(home, sa.type_coerce(own, TEXT)) > sa.tuple_(
            sa.literal(repository_id), sa.literal(digest, TEXT)
        )
        order = [home, own]
    query = sa.select(home, own, retainers.is_retained(kind, home, own))
    rows = tx.execute(query.select_from(table).where(after).order_by(*order).limit(PAGE))
    return [(row[0], row[1], bool(row[2])) for row in rows]
