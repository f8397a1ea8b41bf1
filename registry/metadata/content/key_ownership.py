"""Owners of a key in a store: an upload session, a blob or a pending deletion."""

from collections.abc import Collection

import sqlalchemy as sa

from registry.metadata.content import uploads as sessions
from registry.metadata.engine.transaction import Transaction, in_chunks
from registry.metadata.tables import blobs, pending_deletions, uploads
from storage.keys import MULTIPART_PREFIX, session_of

_u = uploads.c


def list_unowned(tx: Transaction, store: str, keys: Collection[str]) -> set[str]:
    """Return those of the store's `keys` that no row names.

    A key moves from its session to a blob, and from either to the pending deletions. The tables are
    read in this order, so that a key that moves during the search is found in a later table.
    """
    left = set(keys)
    for table in (
        blobs,
        pending_deletions,
    ):  # nearly all keys are here; a session lookup costs more
        left -= _list_named(tx, table, store, left)
    left -= _list_of_sessions(tx, store, left)
    for table in (blobs, pending_deletions):
        left -= _list_named(tx, table, store, left)
    return left


def _list_named(tx: Transaction, table: sa.Table, store: str, keys: Collection[str]) -> set[str]:
    found: set[str] = set()
    for some in in_chunks(keys):
        query = sa.select(table.c.key).where(table.c.store == store, table.c.key.in_(some))
        found.update(tx.execute(query).scalars())
    return found


def _list_of_sessions(tx: Transaction, store: str, keys: Collection[str]) -> set[str]:
    found = _list_named(tx, uploads, store, keys)
    ids = {key: session for key in keys if (session := session_of(key)) is not None}
    open_ids: set[str] = set()
    for some in in_chunks(ids.values()):
        open_ids |= sessions.list_present(tx, some)
    found.update(key for key, session in ids.items() if session in open_ids)
    for key in keys:
        # Staged parts are recorded in the format of the store, which contains the key.
        if key.startswith(MULTIPART_PREFIX):
            said = sa.exists().where(_u.store == store, _u.parts.contains(key, autoescape=True))
            if tx.execute(sa.select(said)).scalar_one():
                found.add(key)
    return found
