"""Readiness checks of this process."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from registry.errors import DatabaseUnavailableError, RegistryError
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from storage.errors import StoreError
from storage.stores import Store, Stores

TIMEOUT_S = 2.5
"""Timeout in seconds for the database and the stores. Probes have short timeouts themselves."""


class _Check:
    """A check of one component, shared by concurrent callers.

    At most one check runs at a time. After the timeout, a hanging check is abandoned.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._began = 0.0
        self._task: asyncio.Task[str] | None = None

    async def find_problem(self) -> str:
        """Return the problem, or an empty string."""
        now = time.monotonic()
        if self._task is None or self._task.done() or now >= self._began + TIMEOUT_S:
            self._began = now
            self._task = asyncio.create_task(self._run())
        task = self._task
        await asyncio.wait([task], timeout=self._began + TIMEOUT_S - now)
        return task.result() if task.done() else "no response"

    async def _run(self) -> str:
        try:
            await self._probe()
        except DatabaseUnavailableError as error:
            return error.reason or error.message
        except (RegistryError, StoreError) as error:
            return str(error)
        return ""


class Health:
    """Readiness of this process.

    Ready means that the database is reachable, has a usable schema and accepts writes, that the
    stores are reachable, and that no shutdown is in progress.
    """

    def __init__(self, database: Database, stores: Stores, *, read_only: bool = False) -> None:
        """Create the checks. With `read_only`, the database need not accept writes."""
        self.draining = False
        self.waiting_for: dict[str, str] = {}
        """What a starting process waits for: the reason by component. Empty once it serves."""

        async def look_at_database() -> None:
            await migrate.require_current(database, timeout_s=TIMEOUT_S)
            if not read_only:
                await database.require_writable(timeout_s=TIMEOUT_S)

        self._checks = {
            "database": _Check(look_at_database),
            "storage": _Check(partial(_look_at, stores.current)),
        }
        if stores.old is not None:
            self._checks["old_storage"] = _Check(partial(_look_at, stores.old))

    async def list_problems(self) -> dict[str, str]:
        """Return the problems that keep this process from serving, by component."""
        if self.waiting_for:
            return dict(self.waiting_for)
        found = await asyncio.gather(*(check.find_problem() for check in self._checks.values()))
        parts = [*self._checks, "server"]
        problems = [*found, "shutting down" if self.draining else ""]
        return {part: problem for part, problem in zip(parts, problems, strict=True) if problem}


async def _look_at(store: Store) -> None:
    await store.driver.check()
