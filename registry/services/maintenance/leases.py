"""Leases: decide which process runs a job."""

from registry.auth.policy.principals import OPERATOR
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database


class Leases:
    """Leases that expire, so that a dead process blocks nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        """Take or extend the lease for `seconds`. Return False if another process holds it."""
        # Jobs free space and need a lease, so this write may use the disk reserve.
        return await self._db.write(
            lambda tx: leases.claim(tx, name, holder, seconds),
            actor=OPERATOR.name,
            may_use_reserve=True,
        )

    async def release(self, name: str, holder: str) -> None:
        await self._db.write(
            lambda tx: leases.release(tx, name, holder), actor=OPERATOR.name, may_use_reserve=True
        )
