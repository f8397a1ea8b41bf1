"""Upload leases: exclusive use of upload sessions, for stores that cannot lock.

Each claim of a session increments the claim number of its row, which is a fencing token: after a
new claim, all writes of the previous holder to the row fail. A lease protects a live holder from
being superseded. It also stops a holder that has lost the database from writing to the store.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from registry.auth.policy.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata.content import uploads
from registry.metadata.content.uploads import ClaimState, UploadRow
from registry.metadata.engine.database import Database
from storage.driver import SessionRecord
from storage.errors import UploadLockedError

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after its last heartbeat at which a holder counts as dead.

Other requests of the session wait that long, so the lease is short. Fencing makes this safe.
"""

BEAT = 3.0
"""Seconds between heartbeats."""

LOOK = 0.1
"""Seconds between checks whether a holder has finished or died."""


@dataclass(slots=True)
class UploadLease:
    """A claim on an upload session, which a later claim may supersede."""

    record: SessionRecord

    over: bool = False
    """Set by the caller when the row has been deleted, so that it is not released."""

    lost: bool = False
    """Set on exit: whether another claim has superseded this one or the session has ended."""


@dataclass(frozen=True, slots=True)
class UploadLeases:
    """Leases of this process on upload sessions."""

    database: Database

    @contextlib.asynccontextmanager
    async def hold(self, upload_id: str) -> AsyncIterator[UploadLease | None]:
        """Hold the lease of a session. Yields None if the session does not exist.

        Raises UploadLockedError if another holder is alive. A dead holder is detected only when its
        lease expires. This waits until then, because clients like Docker give up at the first 409.
        """
        row, asked = await self._claim_when_free(upload_id)
        if row is None:
            yield None
            return
        lease = _Lease(self.database, row, asked)
        beating = asyncio.create_task(lease.beat())
        hold = UploadLease(
            SessionRecord(row.claim, row.parts or "", lease.save_state, lease.ensure_lease)
        )
        try:
            yield hold
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            hold.lost = not hold.over and not await lease.release()

    async def _claim_when_free(self, upload_id: str) -> tuple[UploadRow | None, float]:
        """Return the claimed row, and a time before the claim.

        Raises UploadLockedError like `hold`.
        """
        begun = time.monotonic()
        first: ClaimState | None = None
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
                raise UploadLockedError
            await asyncio.sleep(LOOK)

    async def _claim(self, upload_id: str) -> UploadRow | None:
        return await self.database.write(
            lambda tx: uploads.claim(tx, upload_id, LEASE), actor=OPERATOR.name
        )


class _Lease:
    """The lease of a claimed row, with heartbeats."""

    def __init__(self, database: Database, row: UploadRow, asked: float) -> None:
        """Create the lease. `asked` is a time of `time.monotonic` before the claim."""
        self._db = database
        self._row = row
        self._until = asked + LEASE

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            with contextlib.suppress(DatabaseUnavailableError, UploadLockedError):
                await self._renew()

    async def ensure_lease(self) -> None:
        if time.monotonic() > self._until:
            await self._renew()

    async def _renew(self) -> None:
        row, asked = self._row, time.monotonic()
        if not await self._db.write(
            lambda tx: uploads.hold(tx, row.id, row.claim, LEASE), actor=OPERATOR.name
        ):
            raise UploadLockedError
        self._until = asked + LEASE

    async def save_state(self, state: str) -> None:
        row = self._row
        if not await self._db.write(
            lambda tx: uploads.save(tx, row.id, row.claim, state), actor=OPERATOR.name
        ):
            raise UploadLockedError

    async def release(self) -> bool:
        """Release the lease. Return whether it was held until now, as far as is known."""
        row = self._row
        try:
            return await self._db.write(
                lambda tx: uploads.release(tx, row.id, row.claim), actor=OPERATOR.name
            )
        except DatabaseUnavailableError:
            logger.warning("upload %s stays held until its lease runs out", row.id)
            return True
