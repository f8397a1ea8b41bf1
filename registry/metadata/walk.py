"""The one walk through what was there before the queue was: what nothing keeps is queued."""

from typing import Any

import sqlalchemy as sa

from registry.metadata import reasons, rounds
from registry.metadata.tables import TEXT, blobs, manifests, repository_blobs
from registry.metadata.transaction import NOWHERE, Kind, Transaction
from storage.digest import Digest

PAGE = 500
"""Rows of a step."""

_WAY = {Kind.LINK: repository_blobs, Kind.MANIFEST: manifests, Kind.BLOB: blobs}


def go_on(tx: Transaction) -> bool:
    """Take a step; False if the walk is over. The row tells where it goes on: a kind, the id of a
    repository and a digest, the last that it came to.
    """
    place = rounds.find(tx).filling
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
    rounds.note_walk(tx, goal)
    return True


def _list_after(
    tx: Transaction, kind: Kind, repository_id: int, digest: str
) -> list[tuple[int, Digest, bool]]:
    """The rows of the next page, each with whether something keeps it."""
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
    query = sa.select(home, own, reasons.is_kept(kind, home, own))
    rows = tx.execute(query.select_from(table).where(after).order_by(*order).limit(PAGE))
    return [(row[0], row[1], bool(row[2])) for row in rows]
