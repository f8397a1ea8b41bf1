"""Removing the bytes of doomed keys: rows go before bytes, and the owner after them."""

from registry.auth.principals import OPERATOR
from registry.metadata import doomed, leases
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from storage.stores import Store, Stores

BATCH = 100

BACKUPS = "backup/"
"""How the names of leases begin that hold all bytes: a backup copies what it saw in the rows."""

SLACK = 60.0
"""Seconds that a link may be signed after its blob was looked up, and that clocks may differ."""


class Doomed:
    """The books of keys that lost."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._db = database
        self._stores = stores

    async def is_any_due(self) -> bool:
        return any([await self._list_due(store, 1) for store in self._stores])

    async def sweep(self) -> int:
        """Remove the bytes of at most BATCH keys of each store whose time has come; how many."""
        return sum([await self._sweep(store) for store in self._stores])

    async def _sweep(self, store: Store) -> int:
        keys = await self._list_due(store, BATCH)
        for key in keys:
            await store.blobs.delete(key)
        if keys:
            await self._db.write(
                lambda tx: doomed.delete(tx, store.name, keys), actor=OPERATOR.name, frees=True
            )
        return len(keys)

    async def _list_due(self, store: Store, n: int) -> list[str]:
        # Whoever was sent to an object may still be about to read it there.
        life = store.blobs.link_life
        held = life + SLACK if life else 0.0

        def work(tx: Transaction) -> list[str]:
            if leases.is_any_held(tx, BACKUPS):
                return []
            return doomed.list_due(tx, store.name, n, held=held)

        return await self._db.read(work)
