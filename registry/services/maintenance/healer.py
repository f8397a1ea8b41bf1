"""Healing: replaces missing or damaged blobs with copies from an upstream registry."""

import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from registry import metrics
from registry.errors import DigestMismatchError, UpstreamError
from registry.metadata.content import blobs
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine.database import Database
from registry.services.content.blob_writer import BlobWriter
from registry.services.maintenance.scrub import Scrub

if TYPE_CHECKING:
    from registry.client.upstream import Upstream

logger = logging.getLogger(__name__)

NAMES = 20
"""Maximum number of repository names under which a blob is requested."""

PAUSE_S = 600.0
"""Seconds between a pass over all damaged blobs and the next one."""


class Healer:
    """The healer: one blob per call, again from the first blob after a pause."""

    def __init__(
        self, database: Database, scrub: Scrub, blob_writer: BlobWriter, upstream: "Upstream | None"
    ) -> None:
        self._db = database
        self._scrub = scrub
        self._blob_writer = blob_writer
        self._upstream = upstream
        self._rows: AsyncIterator[BlobRow] | None = None
        self._next = 0.0

    async def close(self) -> None:
        """Close the connections to the upstream."""
        if self._upstream is not None:
            await self._upstream.close()

    async def is_due(self) -> bool:
        """Return whether there are damaged blobs and the pause is over."""
        if self._upstream is None or time.monotonic() < self._next:
            return False
        return await self._db.read(blobs.count_not_live) > 0

    async def run(self) -> int:
        """Try to heal one blob. Return 0 when all damaged blobs have been tried.

        Raises StoreError if the store is full or unavailable.
        """
        if self._rows is None:
            self._rows = self._scrub.iter_damaged_rows()
        row = await anext(self._rows, None)
        if row is None or self._upstream is None:
            self._rows, self._next = None, time.monotonic() + PAUSE_S
            return 0
        await self._heal(row, self._upstream)
        return 1

    async def _heal(self, row: BlobRow, upstream: "Upstream") -> None:
        names = await self._db.read(lambda tx: blobs.list_repositories(tx, row.digest, NAMES))
        problem = "no repository contains it"
        for name in sorted(names):
            try:
                async with upstream.open_blob(name, row.digest, size=row.size) as body:
                    healed = await self._blob_writer.replace(row, body, retain_old_for=0.0)
            except (UpstreamError, DigestMismatchError) as error:
                problem = error.message
                continue
            if healed:  # otherwise a push replaced the blob first
                metrics.BLOBS_HEALED.inc()
                logger.warning(
                    "blob %s was damaged and has been replaced by a copy from upstream", row.digest
                )
            return
        logger.warning("damaged blob %s cannot be replaced from upstream: %s", row.digest, problem)
