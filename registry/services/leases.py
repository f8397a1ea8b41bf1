"""Which process runs a job."""

from registry.auth.principals import OPERATOR
from registry.metadata import leases
from registry.metadata.database import Database


class Leases:
    """Claims that run out, so that a dead process holds nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, name: str, holder: str, seconds: float) -> bool:
        """Take or extend the lease for `seconds`, unless another holds it; whether it was taken."""
        # Without a lease no job frees anything.
        return await self._db.write(
            lambda tx: leases.claim(tx, name, holder, seconds), actor=OPERATOR.name, frees=True
        )

    async def release(self, name: str, holder: str) -> None:
        await self._db.write(
            lambda tx: leases.release(tx, name, holder), actor=OPERATOR.name, frees=True
        )
