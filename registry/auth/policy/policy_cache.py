"""An in-memory cache of the access policy that is provably current (docs/adr/0008)."""

import asyncio

from registry.auth.policy.policy import Policy
from registry.metadata.access import policy
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch


class PolicyCache:
    """Returns the policy as of the time of the call."""

    def __init__(
        self, database: Database, watch: RevisionWatch, *, personal_namespaces: bool
    ) -> None:
        self._db = database
        self._watch = watch
        self._personal = personal_namespaces
        self._policy: Policy | None = None
        self._lock = asyncio.Lock()

    async def get(self, since: float | None = None) -> Policy:
        """Return the policy as of now, or as of some time after `since`.

        `since` is as in `RevisionWatch.read`. Raises DatabaseUnavailableError.
        """
        revision = (self._watch.latest_known(since) or await self._watch.read(since)).policy
        known = self._policy
        if known is not None and known.revision >= revision:
            return known
        async with self._lock:
            known = self._policy
            if known is not None and known.revision < revision:
                self._policy = known = await self._update(known)
            if known is None:
                rows = await self._db.read(policy.load)
                # On a thread, because this takes longer the larger the policy is, and other
                # requests must proceed.
                known = await asyncio.to_thread(Policy, rows, personal_namespaces=self._personal)
                self._policy = known
        return known

    async def _update(self, known: Policy) -> Policy | None:
        """Return the policy with the changes since; None if it has to be loaded completely."""
        changes = await self._db.read(lambda tx: policy.load_changes(tx, known.revision))
        return None if changes is None else await asyncio.to_thread(known.updated, changes)
