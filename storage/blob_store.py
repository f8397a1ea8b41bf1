"""Read access to content-addressed objects, with a size check before any byte is served."""

from storage.driver import Driver, Reader
from storage.errors import ObjectCorruptError


class BlobStore:
    """Stored objects whose size is known from their row in the database.

    Every read checks the size first, so that a truncated or empty file is never served as the blob.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def stat_is_cheap(self) -> bool:
        """Whether `check` costs almost nothing."""
        return self._driver.stat_is_cheap

    @property
    def signed_url_ttl(self) -> float:
        """Seconds for which an object must outlive the last presigned URL for it."""
        return self._driver.signed_url_ttl

    async def presigned_url(self, key: str) -> str | None:
        """Return a presigned URL valid for `signed_url_ttl`, or None if the store has none."""
        return await self._driver.presigned_url(key)

    async def check(self, key: str, size: int) -> None:
        """Raise ObjectMissingError or ObjectCorruptError unless the object is `size` bytes long."""
        self._require_size(await self._driver.stat(key), size)

    async def open(self, key: str, size: int, part: tuple[int, int] | None = None) -> Reader:
        """Open the object for reading. Raises the same errors as `check`.

        `part` is the first byte and the length of the range that will be read. The default is the
        whole object.
        """
        reader = await self._driver.open(key, *(part or ()))
        try:
            self._require_size(reader.size, size)
        except ObjectCorruptError:
            await reader.close()
            raise
        return reader

    async def delete(self, key: str) -> None:
        await self._driver.delete(key)

    @staticmethod
    def _require_size(actual: int, size: int) -> None:
        if actual != size:
            raise ObjectCorruptError(f"the stored object has {actual} bytes instead of {size}")
