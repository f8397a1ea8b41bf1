"""Content-addressed objects, judged before they are served."""

from storage.driver import Driver, Reader
from storage.errors import ObjectDamagedError


class Blobs:
    """Objects whose length is known from their row. Every way to bytes goes through a size check,
    because a truncated or emptied file must never pass for the blob.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def cheap_stat(self) -> bool:
        """Whether `check` costs next to nothing."""
        return self._driver.cheap_stat

    @property
    def link_life(self) -> float:
        """Seconds for which an object must outlive the last link to it."""
        return self._driver.link_life

    async def find_link(self, key: str) -> str | None:
        """A URL of the object that is good for `link_life`, where the store has such."""
        return await self._driver.find_link(key)

    async def check(self, key: str, size: int) -> None:
        """Raise ObjectMissingError or ObjectDamagedError unless `size` bytes are under `key`."""
        self._judge(await self._driver.stat(key), size)

    async def open(self, key: str, size: int, part: tuple[int, int] | None = None) -> Reader:
        """Open the object for reading; errors as `check`. `part`: first byte and length of what
        will be read, all by default.
        """
        reader = await self._driver.open(key, *(part or ()))
        try:
            self._judge(reader.size, size)
        except ObjectDamagedError:
            await reader.close()
            raise
        return reader

    async def delete(self, key: str) -> None:
        await self._driver.delete(key)

    @staticmethod
    def _judge(actual: int, size: int) -> None:
        if actual != size:
            raise ObjectDamagedError(f"{actual} bytes where {size} must be")
