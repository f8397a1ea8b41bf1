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

from msgspec import Struct

from registry.auth.policy.principals import OPERATOR
from registry.errors import DatabaseUnavailableError
from registry.metadata.content import repositories, uploads
from registry.metadata.content.uploads import ClaimState, UploadRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from storage.driver import SessionRecord
from storage.errors import UploadLockedError

logger = logging.getLogger(__name__)

LEASE_S = 10.0
"""Seconds after its last heartbeat at which a holder counts as dead.

Other requests of the session wait that long, so the lease is short. Fencing makes this safe.
"""

HEARTBEAT_S = 3.0
"""Seconds between heartbeats."""

POLL_S = 0.1
"""Seconds between checks whether a holder has finished or died."""


class UploadLease(Struct):
    """A claim on an upload session, which a later claim may supersede."""

    record: SessionRecord

    row: UploadRow
    """The session as the claim found it."""

    belongs: bool
    """Whether the session could be used in its repository when it was claimed."""

    over: bool = False
    """Set by the caller when the row has been deleted, so that it is not released."""

    lost: bool = False
    """Set on exit: whether another claim has superseded this one or the session has ended."""


class UploadLeases(Struct, frozen=True):
    """Leases of this process on upload sessions."""

    database: Database

    @contextlib.asynccontextmanager
    async def acquire(self, upload_id: str) -> AsyncIterator[UploadLease | None]:
        """Hold the lease of a session. Yields None if the session does not exist.

        Raises UploadLockedError if another holder is alive. A dead holder is detected only when its
        lease expires. This waits until then, because clients like Docker give up at the first 409.
        """
        claimed, asked = await self._claim_when_free(upload_id)
        if claimed is None:
            yield None
            return
        row, belongs = claimed
        heartbeat = _Heartbeat(self.database, row, asked)
        beating = asyncio.create_task(heartbeat.run())
        record = SessionRecord(
            row.claim_number, row.resume_state or "", heartbeat.save_state, heartbeat.ensure_lease
        )
        lease = UploadLease(record, row, belongs)
        try:
            yield lease
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            lease.lost = not lease.over and not await heartbeat.release()

    async def _claim_when_free(self, upload_id: str) -> tuple[tuple[UploadRow, bool] | None, float]:
        """Return the result of `_claim`, and a time before it. Raises as `acquire`."""
        begun = time.monotonic()
        first: ClaimState | None = None
        while True:
            asked = time.monotonic()
            claimed = await self._claim(upload_id)
            held = (
                None
                if claimed
                else await self.database.read(lambda tx: uploads.find_held(tx, upload_id))
            )
            if held is None:
                return claimed, asked
            first = first or held
            lives = held.until is not None and held != first
            if lives or asked > begun + LEASE_S:
                raise UploadLockedError
            await asyncio.sleep(POLL_S)

    async def _claim(self, upload_id: str) -> tuple[UploadRow, bool] | None:
        """Claim the session. Return it, and whether it may be used in its repository."""

        def work(tx: Transaction) -> tuple[UploadRow, bool] | None:
            row = uploads.claim(tx, upload_id, LEASE_S)
            if row is None:
                return None
            return row, row.belongs_to(repositories.find(tx, row.repository))

        return await self.database.write(work, actor=OPERATOR.name)


class _Heartbeat:
    """Renewal of the lease of a claimed row."""

    def __init__(self, database: Database, row: UploadRow, asked: float) -> None:
        """Create the heartbeat. `asked` is a time of `time.monotonic` before the claim."""
        self._db = database
        self._row = row
        self._until = asked + LEASE_S

    async def run(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(DatabaseUnavailableError, UploadLockedError):
                await self._renew()

    async def ensure_lease(self) -> None:
        if time.monotonic() > self._until:
            await self._renew()

    async def _renew(self) -> None:
        row, asked = self._row, time.monotonic()
        if not await self._db.write(
            lambda tx: uploads.hold(tx, row.id, row.claim_number, LEASE_S), actor=OPERATOR.name
        ):
            raise UploadLockedError
        self._until = asked + LEASE_S

    async def save_state(self, state: str) -> None:
        row = self._row
        if not await self._db.write(
            lambda tx: uploads.save(tx, row.id, row.claim_number, state), actor=OPERATOR.name
        ):
            raise UploadLockedError

    async def release(self) -> bool:
        """Release the lease. Return whether it was held until now, as far as is known."""
        row = self._row
        try:
            return await self._db.write(
                lambda tx: uploads.release(tx, row.id, row.claim_number), actor=OPERATOR.name
            )
        except DatabaseUnavailableError:
            logger.warning(
                "upload %s: cannot release the lease, because the database is unavailable; it "
                "expires within %.0f s",
                row.id,
                LEASE_S,
            )
            return True
