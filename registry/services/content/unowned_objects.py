"""Objects that a power cut has left without an owner.

On a disk, the row that names the key of an object may not be durable when the object is: both the
row and the blob are lost if the power fails before the blob is acknowledged.
"""

from registry import clock
from registry.auth.policy.principals import OPERATOR
from registry.metadata.content import key_ownership
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.metadata.revisions import change_feed
from storage.keys import is_known_key
from storage.stores import Store, Stores

_DELAY_US = 7 * 86_400_000_000
"""Microseconds before the deletion, in case the database was restored from an old copy by mistake.
"""

_SLACK_US = 600_000_000
"""Microseconds by which the clock may have been set forward while a blob was published."""


class UnownedObjects:
    """The search for such objects, once in the life of a process."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._db = database
        self._stores = stores
        self._is_done = False

    async def queue(self) -> int:
        """Queue deletion of the objects. Return their number.

        They were written before the machine started, because the power failed, and after the last
        durable change before that: a durable change makes all earlier rows durable.
        """
        if self._is_done or not self._db.embedded:
            return 0
        started_at = clock.now_us() - clock.boottime_us()
        last = await self._db.read(lambda tx: change_feed.find_last_time(tx, started_at))
        since = 0 if last is None else last - _SLACK_US
        disks = [store for store in self._stores if store.staging.supports_locking]
        found = sum([await self._queue_from(store, since, started_at) for store in disks])
        self._is_done = True
        return found

    async def _queue_from(self, store: Store, since: int, started_at: int) -> int:
        found = 0
        async for page in store.driver.iter_objects(since):
            keys = {
                each.key
                for each in page
                if since <= each.written_at < started_at and is_known_key(each.key)
            }
            if keys and await self._db.read(
                lambda tx, keys=keys: key_ownership.list_unowned(tx, store.name, keys)  # type: ignore[misc]
            ):
                found += await self._queue_keys(store.name, keys)
        return found

    async def _queue_keys(self, store: str, keys: set[str]) -> int:
        def work(tx: Transaction) -> int:
            unowned = key_ownership.list_unowned(tx, store, keys)
            pending_deletions.insert_all(
                tx, [(store, key) for key in unowned], "no owner", not_before=tx.now + _DELAY_US
            )
            return len(unowned)

        return await self._db.write(work, actor=OPERATOR.name)
