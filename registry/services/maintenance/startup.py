"""Startup of a process while its database or store is not available yet."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from registry.errors import DatabaseUnavailableError
from storage.errors import StoreError, StoreRefusedError, StoreUnavailableError

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Seconds between attempts."""

REPEAT = 60.0
"""Seconds after which an unchanged reason is logged again."""


class Startup:
    """Repeated attempts to open the registry.

    `waiting_for` contains the missing component and the reason.
    """

    def __init__(self, waiting_for: dict[str, str]) -> None:
        self._waiting_for = waiting_for
        self._logged = ""
        self._logged_at = 0.0

    async def try_once(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Try once. Return whether the registry is open.

        Raises errors that waiting cannot fix.
        """
        try:
            await attempt()
        except StoreRefusedError:
            raise
        except (DatabaseUnavailableError, StoreUnavailableError) as error:
            self.note(error)
            return False
        if self._waiting_for:
            logger.info("the %s is now available", " and ".join(self._waiting_for))
            self._waiting_for.clear()
        return True

    async def wait(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Repeat the attempt until the registry is open."""
        while not await self.try_once(attempt):  # noqa: ASYNC110 - no event signals availability
            await asyncio.sleep(PAUSE_S)

    def note(self, error: DatabaseUnavailableError | StoreUnavailableError) -> None:
        """Record the reason. Log it if it is new or was logged long ago."""
        part = "storage" if isinstance(error, StoreError) else "database"
        self._waiting_for.clear()
        self._waiting_for[part] = str(error)
        line = f"{error}: {error.reason}" if error.reason else str(error)
        now = time.monotonic()
        if line != self._logged or now >= self._logged_at + REPEAT:
            logger.warning("waiting for the %s: %s", part, line)
            self._logged, self._logged_at = line, now
