"""S3 driver. `storage.keys` describes the layout in the bucket.

A bucket has no locks and no rename. The session's row records which request holds a session and
where its bytes are staged. Every key is in a row before there are bytes under it, so that the
bucket never has to be searched.
"""

from collections.abc import AsyncIterator
from typing import NoReturn

from storage import keys, layouts
from storage.driver import SessionRecord, StagedReader, StoredObject
from storage.errors import ObjectMissingError, StoreRefusedError, StoreUnavailableError
from storage.s3.bucket import S3Bucket
from storage.s3.client import LATE_WINDOW_S
from storage.s3.reader import S3Reader
from storage.s3.settings import S3Settings
from storage.s3.state import MultipartState
from storage.s3.upload import S3Upload

_OWN_NAMES = {"VERSION", "SELFTEST", "blobs", "staging"}


class S3Driver:
    """A store in a bucket, or below a prefix of one."""

    shared = True
    supports_locking = False
    stat_is_cheap = False
    late_write_window = LATE_WINDOW_S

    def __init__(self, settings: S3Settings, *, name: str = "s3") -> None:
        self.name = name
        self.signed_url_ttl = settings.redirect_lifetime if settings.redirect else 0.0
        self._bucket = S3Bucket(settings)

    async def start(self, *, create: bool = True) -> None:
        if await self._has_store():
            return
        if not create:
            raise StoreRefusedError(
                "the bucket has no Moorage store below the prefix; check the settings bucket and "
                "prefix"
            )
        await self._bucket.put("VERSION", layouts.MARKER)

    async def probe(self) -> None:
        await self._has_store()

    async def _has_store(self) -> bool:
        """Return whether the bucket has a store. Raises StoreRefusedError if it cannot have one."""
        foreign = layouts.foreign_names(await self._bucket.list_names(), _OWN_NAMES)
        if foreign and not await self._has("VERSION"):
            await self._refuse(foreign)
        await self._bucket.self_test()
        try:
            found = await self._bucket.fetch("VERSION")
        except ObjectMissingError:
            return False
        if found != layouts.MARKER:
            raise StoreRefusedError(
                "the bucket has the format of another version of Moorage; start that version, or "
                "choose another bucket or prefix"
            )
        return True

    async def _has(self, key: str) -> bool:
        try:
            await self._bucket.stat(key)
        except ObjectMissingError:
            return False
        return True

    async def _refuse(self, foreign: list[str]) -> NoReturn:
        """Raise StoreRefusedError for foreign content, before anything is written to the bucket."""
        found = [path for path in layouts.FOREIGN_PATHS if await self._bucket.exists(path)]
        what = layouts.describe(foreign, layouts.recognize(found))
        raise StoreRefusedError(
            f"the bucket {what} below the prefix and has no Moorage store there. {layouts.REMEDY}. "
            "The setting prefix gives Moorage a part of a bucket"
        )

    async def check(self) -> None:
        try:
            await self._bucket.stat("VERSION")
        except ObjectMissingError as error:
            raise StoreUnavailableError(
                "the bucket has no Moorage store below the prefix"
            ) from error

    async def claim(self, session: str, record: SessionRecord | None = None) -> S3Upload:
        if record is None:
            raise ValueError("a bucket has no locks: claim needs the session's row")
        return S3Upload(self._bucket, session, record)

    def possible_keys(self, session: str, state: str, claim: int) -> set[str]:
        found = MultipartState.from_json(state)
        # Each claim since the state was written may have put a tail before it died.
        named = {keys.staged_key(session, n) for n in range(found.claim + 1, claim + 1)}
        return named | {key for key in (found.tail, found.key) if key is not None}

    async def open_staged(self, session: str) -> StagedReader | None:
        del session  # the parts of an unfinished upload cannot be read
        return None

    async def list_staged(self) -> list[str]:
        return []  # every key is in a row, so there is nothing to list

    async def iter_objects(self, since: int = 0) -> AsyncIterator[list[StoredObject]]:
        del since  # the listing costs the same
        for below in ("blobs/", "staging/"):
            async for page in self._bucket.iter_objects(below):
                yield page

    async def stat(self, key: str) -> int:
        return await self._bucket.stat(key)

    async def open(self, key: str, start: int = 0, length: int | None = None) -> S3Reader:
        return await self._bucket.open(key, start, length)

    async def presigned_url(self, key: str) -> str | None:
        return await self._bucket.sign(key, self.signed_url_ttl) if self.signed_url_ttl else None

    async def delete(self, key: str) -> None:
        await self._bucket.delete(key)

    async def close(self) -> None:
        await self._bucket.close()
