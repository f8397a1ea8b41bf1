"""Deletion of objects whose keys are queued for deletion.

Blob rows are deleted before the bytes. The row of the pending deletion is deleted after them.
"""

import logging

from registry.auth.policy.principals import OPERATOR
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.metadata.gc.pending_deletions import DueRow
from storage.errors import StoreError
from storage.stores import Store, Stores

logger = logging.getLogger(__name__)

BATCH = 100

SLACK = 60.0
"""Seconds for signing a URL after the lookup of its blob, and for clock differences."""

PAUSE_S = 900.0
"""Seconds until a failed deletion is retried while the store is otherwise healthy."""


class DeletionQueue:
    """The execution of pending deletions."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._db = database
        self._stores = stores

    async def is_any_due(self) -> bool:
        return any([await self._list_due(store, 1) for store in self._stores])

    async def sweep(self) -> int:
        """Delete the objects of at most BATCH due keys of each store. Return their number.

        Raises StoreError if a store fails as a whole.
        """
        return sum([await self._sweep(store) for store in self._stores])

    async def _sweep(self, store: Store) -> int:
        gone: list[DueRow] = []
        kept: list[DueRow] = []
        for row in await self._list_due(store, BATCH):
            try:
                await store.blobs.delete(row.key)
            except StoreError as error:
                await store.driver.check()
                # Only this key fails. It must not block the keys behind it.
                logger.warning("cannot delete %s from %s: %s", row.key, row.store, error)
                kept.append(row)
            else:
                gone.append(row)
        # A write that was in flight when its session ended may arrive after the deletion.
        again = [row for row in gone if store.driver.late_write_window and not row.again]
        over = [row for row in gone if not store.driver.late_write_window or row.again]

        def work(tx: Transaction) -> None:
            pending_deletions.delete(tx, over)
            pending_deletions.schedule_second_delete(tx, again, store.driver.late_write_window)
            pending_deletions.defer(tx, kept, PAUSE_S)

        if gone or kept:
            await self._db.write(work, actor=OPERATOR.name, may_use_reserve=True)
        return len(gone)

    async def _list_due(self, store: Store, n: int) -> list[DueRow]:
        # A client with a presigned URL may still be about to read the object.
        life = store.blobs.signed_url_ttl
        held = life + SLACK if life else 0.0
        return await self._db.read(
            lambda tx: pending_deletions.list_due(tx, store.name, n, held=held)
        )
