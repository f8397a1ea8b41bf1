"""Whether this process can do its work."""

import asyncio

from registry.errors import DatabaseUnavailableError, SchemaError
from registry.metadata import migrate
from registry.metadata.database import Database
from storage.driver import Driver
from storage.errors import StoreError

PATIENCE = 5.0
"""Seconds for the database and the store to answer."""


class Health:
    """Readiness: the database and the store answer, the schema fits, no shutdown is under way."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._db = database
        self._driver = driver
        self.draining = False

    async def list_troubles(self) -> dict[str, str]:
        """What keeps this process from serving, by part; empty when it is ready."""
        troubles: dict[str, str] = {}
        if self.draining:
            troubles["server"] = "shutting down"
        try:
            async with asyncio.timeout(PATIENCE):
                await migrate.require_current(self._db)
        except (DatabaseUnavailableError, SchemaError) as error:
            troubles["database"] = error.message
        except TimeoutError:
            troubles["database"] = "no answer"
        try:
            async with asyncio.timeout(PATIENCE):
                await self._driver.check()
        except StoreError as error:
            troubles["storage"] = str(error)
        except TimeoutError:
            troubles["storage"] = "no answer"
        return troubles
