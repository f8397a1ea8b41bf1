"""Holding upload sessions by their rows, for stores that cannot lock.

A hold is a number that grows with each claim, the fencing token: whoever comes later makes every
write of the former holder to the row fail. The lease beside it spares a live holder from that, and
keeps one that is cut off from the database from sending bytes to the store for ever.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from registry.auth.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata import uploads
from registry.metadata.database import Database
from registry.metadata.uploads import Held, UploadRow
from storage.driver import Record
from storage.errors import StagedBusyError

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after its last beat at which a holder counts as dead. Until then whoever goes on with the
session waits, so it is short; the fence is what makes that safe.
"""

BEAT = 3.0
"""Seconds between beats."""

LOOK = 0.1
"""Seconds between two looks whether a holder is done, or dead."""


@dataclass(slots=True)
class Hold:
    """A claim, which another may follow."""

    record: Record

    over: bool = False
    """To be set when the row is gone, so that it is not looked for."""

    lost: bool = False
    """Known at the end: whether another has claimed the session or ended it."""


@dataclass(frozen=True, slots=True)
class UploadHolds:
    """Claims of this process."""

    database: Database

    @contextlib.asynccontextmanager
    async def hold(self, upload_id: str) -> AsyncIterator[Hold | None]:
        """Hold the session's row; None: there is no such session. StagedBusyError if it is held by
        one that shows life: of one that died nothing is seen until its lease is over, and that is
        waited for, since clients like Docker give up at the first 409.
        """
        row, asked = await self._claim_when_free(upload_id)
        if row is None:
            yield None
            return
        lease = _Lease(self.database, row, asked)
        beating = asyncio.create_task(lease.beat())
        hold = Hold(Record(row.claim, row.parts or "", lease.save, lease.keep))
        try:
            yield hold
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            hold.lost = not hold.over and not await lease.release()

    async def _claim_when_free(self, upload_id: str) -> tuple[UploadRow | None, float]:
        """The row, and a moment before it was claimed; StagedBusyError as `hold`."""
        begun = time.monotonic()
        first: Held | None = None
        while True:
            asked = time.monotonic()
            row = await self._claim(upload_id)
            held = (
                None
                if row
                else await self.database.read(lambda tx: uploads.find_held(tx, upload_id))
            )
            if held is None:
                return row, asked
            first = first or held
            lives = held.until is not None and held != first
            if lives or asked > begun + LEASE:
                raise StagedBusyError
            await asyncio.sleep(LOOK)

    async def _claim(self, upload_id: str) -> UploadRow | None:
        return await self.database.write(
            lambda tx: uploads.claim(tx, upload_id, LEASE), actor=OPERATOR.name
        )


class _Lease:
    """A claimed row, held on to."""

    def __init__(self, database: Database, row: UploadRow, asked: float) -> None:
        """`asked`: of `time.monotonic`, before the row was claimed."""
        self._db = database
        self._row = row
        self._until = asked + LEASE

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            with contextlib.suppress(DatabaseUnavailableError, StagedBusyError):
                await self._renew()

    async def keep(self) -> None:
        if time.monotonic() > self._until:
            await self._renew()

    async def _renew(self) -> None:
        row, asked = self._row, time.monotonic()
        if not await self._db.write(
            lambda tx: uploads.hold(tx, row.id, row.claim, LEASE), actor=OPERATOR.name
        ):
            raise StagedBusyError
        self._until = asked + LEASE

    async def save(self, state: str) -> None:
        row = self._row
        if not await self._db.write(
            lambda tx: uploads.save(tx, row.id, row.claim, state), actor=OPERATOR.name
        ):
            raise StagedBusyError

    async def release(self) -> bool:
        """Whether it was held until now, as far as can be told."""
        row = self._row
        try:
            return await self._db.write(
                lambda tx: uploads.release(tx, row.id, row.claim), actor=OPERATOR.name
            )
        except DatabaseUnavailableError:
            logger.warning("upload %s stays held until its lease runs out", row.id)
            return True
