"""Removing the bytes of doomed keys: rows go before bytes, and the owner after them."""

import logging

from registry.auth.principals import OPERATOR
from registry.metadata import doomed
from registry.metadata.database import Database
from registry.metadata.doomed import DueRow
from registry.metadata.transaction import Transaction
from storage.errors import StoreError
from storage.stores import Store, Stores

logger = logging.getLogger(__name__)

BATCH = 100

SLACK = 60.0
"""Seconds that a link may be signed after its blob was looked up, and that clocks may differ."""

PAUSE = 900.0
"""Seconds before a key is tried again that its store, which else is well, does not remove."""


class Doomed:
    """The books of keys that lost."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._db = database
        self._stores = stores

    async def is_any_due(self) -> bool:
        return any([await self._list_due(store, 1) for store in self._stores])

    async def sweep(self) -> int:
        """Remove the bytes of at most BATCH keys of each store whose time has come; how many.

        StoreError where a store fails as a whole.
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
                # It is this key's own trouble, and must not keep those behind it.
                logger.warning("%s of %s could not be removed: %s", row.key, row.store, error)
                kept.append(row)
            else:
                gone.append(row)
        # What was on its way when its session ended may have come after the removal.
        again = [row for row in gone if store.driver.late and not row.again]
        over = [row for row in gone if not store.driver.late or row.again]

        def work(tx: Transaction) -> None:
            doomed.delete(tx, over)
            doomed.repeat(tx, again, store.driver.late)
            doomed.put_off(tx, kept, PAUSE)

        if gone or kept:
            await self._db.write(work, actor=OPERATOR.name, frees=True)
        return len(gone)

    async def _list_due(self, store: Store, n: int) -> list[DueRow]:
        # Whoever was sent to an object may still be about to read it there.
        life = store.blobs.link_life
        held = life + SLACK if life else 0.0
        return await self._db.read(lambda tx: doomed.list_due(tx, store.name, n, held=held))
