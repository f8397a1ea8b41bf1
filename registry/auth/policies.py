"""The policy in force, in memory and provably current (design D8)."""

import asyncio

from registry.auth.policy import Policy
from registry.metadata import policy
from registry.metadata.database import Database
from registry.metadata.watch import Watch


class Policies:
    """Gives the policy as it is at the moment it is asked for."""

    def __init__(self, database: Database, watch: Watch, *, personal_namespaces: bool) -> None:
        self._db = database
        self._watch = watch
        self._personal = personal_namespaces
        self._policy: Policy | None = None
        self._lock = asyncio.Lock()

    async def get(self, since: float | None = None) -> Policy:
        """The policy as of now, or of a moment after `since`, as `Watch.read` has it.

        DatabaseUnavailableError.
        """
        number = (self._watch.peek(since) or await self._watch.read(since)).policy
        known = self._policy
        if known is not None and known.number >= number:
            return known
        async with self._lock:
            known = self._policy
            if known is not None and known.number < number:
                self._policy = known = await self._update(known)
            if known is None:
                rows = await self._db.read(policy.load)
                # As it grows, so does the time: pulls that need none of it go on meanwhile.
                known = await asyncio.to_thread(Policy, rows, personal_namespaces=self._personal)
                self._policy = known
        return known

    async def _update(self, known: Policy) -> Policy | None:
        """The policy with what has changed since; None where all of it must be loaded."""
        changes = await self._db.read(lambda tx: policy.load_changes(tx, known.number))
        return None if changes is None else await asyncio.to_thread(known.updated, changes)
