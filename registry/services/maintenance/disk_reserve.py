"""Disk reserve: space for deletions on a full disk."""

import asyncio
import logging

from registry.metadata.engine.database import Database

logger = logging.getLogger(__name__)


class DiskReserve:
    """The reserve file of an embedded database.

    It is created again after a deletion has used its space.
    """

    def __init__(self, database: Database) -> None:
        self._reserve = database.reserve

    async def is_due(self) -> bool:
        """Return whether the file is missing and can be created."""
        return self._reserve is not None and await asyncio.to_thread(self._reserve.is_missing)

    async def make(self) -> int:
        """Create the file if it is missing. Always returns 0, because no work is left."""
        if self._reserve is not None and await asyncio.to_thread(self._reserve.is_missing):
            try:
                await asyncio.to_thread(self._reserve.make)
            except OSError as error:
                logger.warning("cannot reserve space for deletions on a full disk: %s", error)
        return 0
