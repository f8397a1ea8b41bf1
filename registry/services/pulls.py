"""When manifests were last pulled: noted in memory, written now and then, away from requests."""

import asyncio
import contextlib
import logging
import time

from registry.auth.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata import pulls
from registry.metadata.database import Database
from registry.oci.references import Reference, Tag

logger = logging.getLogger(__name__)

MOST = 100_000
"""Pulls that are remembered, about 30 MiB; those longest ago are forgotten first."""

BATCH = 1000
"""Pulls that one statement writes."""

_Noted = dict[tuple[int, str], float]
"""When, by `time.monotonic`: a clock that jumps moves no pull. The latest comes last."""


class Pulls:
    """Pulls that this process has answered. A process that is killed loses those since it last
    wrote, `every` seconds ago at the most; one that cannot write keeps them and goes on.
    """

    def __init__(self, database: Database, every: float, most: int = MOST) -> None:
        self._db = database
        self._every = every
        self._most = most
        self._noted: _Noted = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note(self, manifest_id: int, reference: Reference) -> None:
        """Remember that the manifest was pulled just now, by that reference."""
        key = manifest_id, str(reference) if isinstance(reference, Tag) else ""
        self._noted.pop(key, None)
        self._noted[key] = time.monotonic()
        if len(self._noted) > self._most:
            del self._noted[next(iter(self._noted))]

    def start(self) -> None:
        self._task = asyncio.create_task(self._repeat(), name="pulls")

    async def stop(self) -> None:
        """Write what there is, if the database can, and no more from here on."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def flush(self) -> None:
        """Write all that was noted until now; what cannot be written is kept.

        DatabaseUnavailableError.
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
        await self._db.write(lambda tx: pulls.put(tx, seen), actor=OPERATOR.name)

    async def _repeat(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._every)
            try:
                await self.flush()
            except DatabaseUnavailableError as error:
                logger.warning("%d pulls wait to be written: %s", len(self._noted), error)
