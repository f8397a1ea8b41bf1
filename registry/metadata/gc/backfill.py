"""One-time backfill of the garbage collection queue with content that is older than the queue."""

from typing import Any

import sqlalchemy as sa

from registry.metadata.engine.transaction import NOWHERE, Kind, Transaction
from registry.metadata.gc import retainers, state
from registry.metadata.tables import TEXT, blobs, manifests, repository_blobs
from storage.digest import Digest

PAGE = 500
"""Rows per step."""

_WAY = {Kind.LINK: repository_blobs, Kind.MANIFEST: manifests, Kind.BLOB: blobs}


def go_on(tx: Transaction) -> bool:
    """Run one step of the backfill. Returns False if it is complete.

    The collector's row has the position: a kind, a repository ID and a digest, the last one read.
    """
    place = state.find(tx).filling
    if place is None:
        return False
    words = (place or f"{next(iter(_WAY))} {NOWHERE} ").split(" ")
    kind, last = Kind(words[0]), (int(words[1]), words[2])
    rows = _list_after(tx, kind, *last)
    for repository_id, digest, kept in rows:
        if not kept:
            tx.queue((repository_id, kind, digest))
    if len(rows) == PAGE:
        goal: str | None = f"{kind} {rows[-1][0]} {rows[-1][1]}"
    else:
        kinds = list(_WAY)
        rest = kinds[kinds.index(kind) + 1 :]
        goal = f"{rest[0]} {NOWHERE} " if rest else None
    state.note_walk(tx, goal)
    return True


def _list_after(
    tx: Transaction, kind: Kind, repository_id: int, digest: str
) -> list[tuple[int, Digest, bool]]:
    """Return the rows of the next page, each with whether it has a retainer."""
    table = _WAY[kind]
    own: sa.ColumnElement[Any] = table.c.digest
    home: sa.ColumnElement[Any] = sa.literal(NOWHERE)
    after = sa.type_coerce(own, TEXT) > digest
    order = [own]
    if kind is not Kind.BLOB:
        home = table.c.repository_id
        after = sa.tuple_(home, sa.type_coerce(own, TEXT)) > sa.tuple_(
            sa.literal(repository_id), sa.literal(digest, TEXT)
        )
        order = [home, own]
    query = sa.select(home, own, retainers.is_kept(kind, home, own))
    rows = tx.execute(query.select_from(table).where(after).order_by(*order).limit(PAGE))
    return [(row[0], row[1], bool(row[2])) for row in rows]
