"""Last pull times of manifests: recorded in memory, written periodically outside of requests."""

import asyncio
import contextlib
import logging
import time

from registry.auth.policy.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata.content import pull_times
from registry.metadata.engine.database import Database
from registry.oci.references import Reference, Tag

logger = logging.getLogger(__name__)

MOST = 100_000
"""Maximum number of recorded pulls, about 30 MiB. The oldest are discarded first."""

BATCH = 1000
"""Pulls per statement."""

_Noted = dict[tuple[int, str], float]
"""Pull times by `time.monotonic`, most recent last. A clock jump does not affect them."""


class Pulls:
    """Pulls that this process has served.

    A process that is killed loses the pulls since its last write, at most `every` seconds. If a
    write fails, the pulls are kept and written later.
    """

    def __init__(self, database: Database, every: float, most: int = MOST) -> None:
        self._db = database
        self._every = every
        self._most = most
        self._noted: _Noted = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, manifest_id: int, reference: Reference) -> None:
        """Record a pull of the manifest, by this reference."""
        key = manifest_id, str(reference) if isinstance(reference, Tag) else ""
        self._noted.pop(key, None)
        self._noted[key] = time.monotonic()
        if len(self._noted) > self._most:
            del self._noted[next(iter(self._noted))]

    def start(self) -> None:
        self._task = asyncio.create_task(self._repeat(), name="pulls")

    async def stop(self) -> None:
        """Stop, and write the recorded pulls if the database is available."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def flush(self) -> None:
        """Write all recorded pulls. Keep those that could not be written.

        Raises DatabaseUnavailableError.
        """
        left = list(self._noted.items())
        self._noted = {}
        try:
            while left:
                await self._write(left[:BATCH])
                del left[:BATCH]
        finally:
            if left:
                newer = self._noted
                kept = {key: at for key, at in left if key not in newer} | newer
                self._noted = dict(list(kept.items())[-self._most :])

    async def _write(self, noted: list[tuple[tuple[int, str], float]]) -> None:
        now = time.monotonic()
        seen = [(manifest_id, tag, int((now - at) * 1_000_000)) for (manifest_id, tag), at in noted]
        await self._db.write(lambda tx: pull_times.put(tx, seen), actor=OPERATOR.name)

    async def _repeat(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._every)
            try:
                await self.flush()
            except DatabaseUnavailableError as error:
                logger.warning("%d pull times are not written yet: %s", len(self._noted), error)
