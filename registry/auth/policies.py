"""The policy in force, in memory and provably current (design D8)."""

import asyncio

from registry.auth.policy import Policy
from registry.metadata import policy
from registry.metadata.database import Database
from registry.metadata.watch import PolicyWatch


class Policies:
    """Gives the policy as it is at the moment it is asked for."""

    def __init__(self, database: Database, *, personal_namespaces: bool) -> None:
        self._db = database
        self._watch = PolicyWatch(database)
        self._personal = personal_namespaces
        self._policy: Policy | None = None
        self._lock = asyncio.Lock()

    def peek(self) -> Policy | None:
        """The policy, where that can be told without asking the database."""
        number = self._watch.peek()
        known = self._policy
        return known if known is not None and known.number == number else None

    async def get(self) -> Policy:
        """The policy; DatabaseUnavailableError."""
        number = await self._watch.read()
        known = self._policy
        if known is not None and known.number >= number:
            return known
        async with self._lock:
            known = self._policy
            if known is None or known.number < number:
                known = Policy(await self._db.read(policy.load), personal_namespaces=self._personal)
                self._policy = known
        return known

    def close(self) -> None:
        self._watch.close()
