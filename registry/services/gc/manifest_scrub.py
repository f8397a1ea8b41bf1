"""Detection of manifests whose rows exist but whose bytes cannot be read.

Such manifests are recorded, and the record is deleted when the bytes are intact again.
"""

import logging
import time

from msgspec import Struct

from registry.auth.policy.principals import OPERATOR
from registry.errors import ManifestInvalidError
from registry.metadata.content import repositories, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import unreadable_manifests
from registry.metadata.gc.unreadable_manifests import StoredManifest
from registry.oci.manifests import parse_manifest
from registry.oci.names import RepositoryName
from registry.services.throttle import Throttle
from storage.digest import Digest

logger = logging.getLogger(__name__)

PAGE_SIZE = 16
"""Manifests per query."""

READ_BYTES = 4 << 20
"""Maximum bytes of manifests per query. A larger manifest is read alone."""


class Unreadable(Struct, frozen=True):
    """An unreadable manifest, and the tags that cannot be pulled completely without it."""

    repository: RepositoryName
    digest: Digest
    tags: list[tuple[RepositoryName, str]]


class _Seen(Struct, frozen=True):
    """Result of reading a manifest of `size` bytes.

    `suspect` is set if the result differs from the recorded state.
    """

    id: int
    repository_id: int
    digest: Digest
    size: int
    suspect: bool


class ManifestScrub:
    """The check of all manifests, whose bytes are in the database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def check(self, last: int, pace: Throttle, seconds: float) -> tuple[int, int]:
        """Check manifests after the id `last` for about `seconds`.

        Returns the last id and the number of checked manifests, 0 at the end.
        """
        count, until = 0, time.monotonic() + seconds
        while seen := await self._list_page(last):
            for each in seen:
                if each.suspect:
                    await self._check_again(each)
                await pace.take(each.size)
            count += len(seen)
            last = seen[-1].id
            if time.monotonic() >= until:
                break
        return last, count

    async def _list_page(self, last: int) -> list[_Seen]:
        return await self._db.read(lambda tx: _list_page(tx, last))

    async def _check_again(self, seen: _Seen) -> None:
        """Check again with the repository locked against pushes, and record the result."""

        def work(tx: Transaction) -> bool:
            repositories.find_by_id(tx, seen.repository_id, lock=True)
            found = unreadable_manifests.list_stored(tx, seen.id - 1, 1, READ_BYTES)
            return bool(found) and found[0].id == seen.id and not _settle(tx, found[0])

        if await self._db.write(work, actor=OPERATOR.name):
            logger.error(
                "manifest %s cannot be read: nothing in its repository is collected",
                seen.digest,
            )

    async def list_known(self, n: int) -> list[Unreadable]:
        """Return at most `n` unreadable manifests, each with the first `n` affected tags."""

        def work(tx: Transaction) -> list[Unreadable]:
            return [
                Unreadable(name, digest, tags.list_tags_reaching(tx, name, digest, n))
                for name, digest in unreadable_manifests.list_known(tx, n)
            ]

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)

    async def count(self) -> int:
        """Return the number of manifests recorded as unreadable."""
        return await self._db.read(unreadable_manifests.count)


def _list_page(tx: Transaction, last: int) -> list[_Seen]:
    return [
        _Seen(
            each.id,
            each.repository_id,
            each.digest,
            len(each.raw or b""),
            is_readable(each.raw, each.media_type, each.digest) is each.noted,
        )
        for each in unreadable_manifests.list_stored(tx, last, PAGE_SIZE, READ_BYTES)
    ]


def _settle(tx: Transaction, now: StoredManifest) -> bool:
    """Record whether a manifest can be read. Return whether it can."""
    readable = is_readable(now.raw, now.media_type, now.digest)
    settle = unreadable_manifests.forget if readable else unreadable_manifests.record
    settle(tx, now.repository_id, now.digest)
    return readable


def is_readable(raw: bytes | None, media_type: str, digest: Digest) -> bool:
    """Return whether the bytes match the digest and are a valid manifest."""
    if raw is None or Digest.of(raw, digest.algorithm) != digest:
        return False
    try:
        parse_manifest(raw, media_type)
    except ManifestInvalidError:
        return False
    return True
