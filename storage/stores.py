"""The open stores. Each blob row names the store that has its bytes."""

import asyncio
from collections.abc import Iterator

from storage.blob_store import BlobStore
from storage.driver import Driver
from storage.errors import StoreUnavailableError
from storage.staging import StagingArea


class Store:
    """An open store."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name = driver.name
        self.blobs = BlobStore(driver)
        self.staging = StagingArea(driver)


class Stores:
    """The stores of this process.

    `current` receives new bytes. Bytes are moved away from `old`, if there is one.
    """

    def __init__(self, current: Driver, old: Driver | None = None) -> None:
        """Register both stores. Raises ValueError if they have the same name."""
        self.current = Store(current)
        self.old = Store(old) if old is not None else None
        self._by_name = {
            store.name: store for store in (self.current, self.old) if store is not None
        }
        if self.old is not None and self.old.name == self.current.name:
            raise ValueError(f"two stores have the same name: {self.current.name}")

    def __iter__(self) -> Iterator[Store]:
        return iter(self._by_name.values())

    @property
    def names(self) -> list[str]:
        return list(self._by_name)

    def get(self, name: str) -> Store:
        """Return the store with this name. Raises StoreUnavailableError if it is not open here."""
        store = self._by_name.get(name)
        if store is None:
            raise StoreUnavailableError(f"the store {name} is not open in this process")
        return store

    async def start(self, *, create: bool) -> None:
        """Prepare the stores.

        `create` creates the current store if it is missing. The old store is never created, because
        an empty one would have nothing to move.
        """
        await self.current.driver.start(create=create)
        if self.old is not None:
            await self.old.driver.start(create=False)

    async def probe(self) -> None:
        """Raise the error that would make `start` fail."""
        for store in self:
            await store.driver.probe()

    async def close(self) -> None:
        await asyncio.gather(*(store.driver.close() for store in self))
