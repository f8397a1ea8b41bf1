"""Room for deletions on a full disk."""

import asyncio
import logging

from registry.metadata.database import Database

logger = logging.getLogger(__name__)


class SpareRoom:
    """The spare file of an embedded database, made again after a deletion has used its room."""

    def __init__(self, database: Database) -> None:
        self._spare = database.spare

    async def is_due(self) -> bool:
        """Whether `make` has something to do, and room for it."""
        return self._spare is not None and await asyncio.to_thread(self._spare.is_missing)

    async def make(self) -> int:
        """Make the file; 0: there is nothing more to do."""
        if self._spare is not None and await asyncio.to_thread(self._spare.is_missing):
            try:
                await asyncio.to_thread(self._spare.make)
            except OSError as error:
                logger.warning("no room is kept for deletions on a full disk: %s", error)
        return 0
