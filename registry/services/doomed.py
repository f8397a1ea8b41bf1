"""Removing the bytes of doomed keys: rows go before bytes, and the owner after them."""

from registry.auth.principals import OPERATOR
from registry.metadata import doomed
from registry.metadata.database import Database
from storage.blobs import Blobs as Objects

BATCH = 100


class Doomed:
    """The books of keys that lost."""

    def __init__(self, database: Database, objects: Objects, store: str) -> None:
        self._db = database
        self._objects = objects
        self._store = store

    async def is_any_due(self) -> bool:
        return bool(await self._db.read(lambda tx: doomed.list_due(tx, self._store, 1)))

    async def sweep(self) -> int:
        """Remove the bytes of at most BATCH keys whose time has come; how many."""
        keys = await self._db.read(lambda tx: doomed.list_due(tx, self._store, BATCH))
        for key in keys:
            await self._objects.delete(key)
        if keys:
            await self._db.write(
                lambda tx: doomed.delete(tx, self._store, keys), actor=OPERATOR.name
            )
        return len(keys)
