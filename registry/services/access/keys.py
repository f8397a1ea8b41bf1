"""Signing keys for tokens: list, rotate, revoke."""

from registry import clock
from registry.auth.audit_log import Actor, Event, record
from registry.auth.keys.keyring import Keyring
from registry.errors import NotFoundError
from registry.metadata.access import signing_keys
from registry.metadata.access.signing_keys import KeyState, SigningKeyRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction

__all__ = ["KeyState", "Keys", "SigningKeyRow"]

KEPT = 2 * 86_400.0
"""Seconds for which a retired key still verifies. Longer than the life of any token."""


class Keys:
    """Signing keys of this registry, shared by all workers and replicas."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._db = database
        self._keyring = keyring

    async def list_all(self) -> list[SigningKeyRow]:
        """Return all keys, oldest first."""
        return await self._db.read(signing_keys.list_all)

    async def rotate(self, actor: Actor) -> str:
        """Sign with a new key from now on. Return its id.

        Tokens that the old key signed remain valid until they expire.
        """
        return await self._keyring.add_key(lambda tx, kid: record(tx, actor, Event.KEY_ROTATE, kid))

    async def revoke(self, kid: str, actor: Actor) -> None:
        """Reject all tokens of a key, with immediate effect. Raises NotFoundError.

        If it is the active key, a new key replaces it.
        """
        keys = {key.kid: key for key in await self.list_all()}
        if kid not in keys:
            raise NotFoundError(f"no signing key {kid!r}")
        if keys[kid].state is KeyState.ACTIVE:
            await self.rotate(actor)

        def work(tx: Transaction) -> None:
            signing_keys.revoke(tx, kid)
            record(tx, actor, Event.KEY_REVOKE, kid)

        await self._db.write(work, actor=actor.name)

    async def drop_retired(self) -> int:
        """Delete keys that retired more than `KEPT` seconds ago. Return their number."""
        before = clock.now_us() - int(KEPT * 1_000_000)
        gone = await self._db.write(
            lambda tx: signing_keys.delete_retired(tx, before), actor="operator"
        )
        await self._keyring.forget(gone)
        return len(gone)
