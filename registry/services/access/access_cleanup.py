"""Cleanup of expired secrets, retired keys and other expired access data."""

from registry import clock
from registry.metadata.access import failed_sign_ins, policy, secrets
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.services.access.keys import Keys

_DAY = 86_400 * 1_000_000
_SECRETS = 30 * _DAY
"""Expired secrets are listed for a month, so that it is visible why a robot stopped working."""
_REMOVALS = 7 * _DAY
"""Longer than the life of any token."""


class AccessCleanup:
    """The cleanup of small rows that would otherwise accumulate."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._db = database
        self._keys = keys

    async def run(self) -> int:
        """Delete expired rows. Return their number."""
        now = clock.now_us()

        def work(tx: Transaction) -> int:
            return (
                secrets.delete_expired(tx, now - _SECRETS)
                + policy.forget_removals(tx, now - _REMOVALS)
                + policy.forget_changes(tx)
                + failed_sign_ins.delete_before(tx, now - _DAY)
            )

        forgotten = await self._db.write(work, actor="operator", timeout_s=LONG_TIMEOUT_S)
        return forgotten + await self._keys.drop_retired()
