"""Holding upload sessions by their rows, for stores that cannot lock.

A hold is a number that grows with each claim, the fencing token: whoever comes later makes every
write of the former holder fail. The lease beside it only spares a live holder from that.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from registry.auth.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata import uploads
from registry.metadata.database import Database
from registry.metadata.uploads import UploadRow
from storage.driver import Record
from storage.errors import StagedBusyError

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after its last beat at which a holder counts as dead. Until then a client that goes on
with the session is told 409, so it is short; the fence is what makes that safe.
"""

BEAT = 3.0
"""Seconds between beats."""


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
        """Hold the session's row; None: there is no such session. StagedBusyError if it is held."""
        row = await self._claim(upload_id)
        if row is None:
            yield None
            return
        beating = asyncio.create_task(self._beat(row))
        hold = Hold(Record(row.claim, row.parts or "", lambda state: self._save(row, state)))
        try:
            yield hold
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            hold.lost = not hold.over and not await self._release(row)

    async def _claim(self, upload_id: str) -> UploadRow | None:
        row = await self.database.write(
            lambda tx: uploads.claim(tx, upload_id, LEASE), actor=OPERATOR.name
        )
        if row is None:
            present = await self.database.read(lambda tx: uploads.find(tx, upload_id))
            if present is not None:
                raise StagedBusyError
        return row

    async def _beat(self, row: UploadRow) -> None:
        while True:
            await asyncio.sleep(BEAT)
            with contextlib.suppress(DatabaseUnavailableError):
                await self.database.write(
                    lambda tx: uploads.hold(tx, row.id, row.claim, LEASE), actor=OPERATOR.name
                )

    async def _save(self, row: UploadRow, state: str) -> None:
        if not await self.database.write(
            lambda tx: uploads.save(tx, row.id, row.claim, state), actor=OPERATOR.name
        ):
            raise StagedBusyError

    async def _release(self, row: UploadRow) -> bool:
        """Whether it was held until now, as far as can be told."""
        try:
            return await self.database.write(
                lambda tx: uploads.release(tx, row.id, row.claim), actor=OPERATOR.name
            )
        except DatabaseUnavailableError:
            logger.warning("upload %s stays held until its lease runs out", row.id)
            return True
