"""Holds: protect manifests, and everything they refer to, from deletion."""

from registry.auth.audit_log import Actor, Event, record
from registry.errors import InputInvalidError, NotFoundError
from registry.metadata.content import manifests, repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds
from registry.metadata.protection.holds import HoldRow
from registry.oci.names import RepositoryName
from storage.digest import Digest

__all__ = ["HoldRow", "Holds"]

LONGEST_REASON = 1000
"""Maximum length of a reason, in characters."""


class Holds:
    """Management of holds.

    `registry.services.content.removal` enforces holds on deletion, and
    `registry.metadata.gc.retainers` in garbage collection.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_page(self, n: int, last: int = 0) -> list[HoldRow]:
        """Return at most `n` holds after the id `last`."""
        return await self._db.read(lambda tx: holds.list_page(tx, n, last))

    async def get(self, hold_id: int) -> HoldRow:
        """Return the hold. Raises NotFoundError."""

        def work(tx: Transaction) -> HoldRow:
            row = holds.find(tx, hold_id)
            if row is None:
                raise _unknown(hold_id)
            return row

        return await self._db.read(work)

    async def add(
        self,
        name: RepositoryName,
        digest: Digest,
        reason: str,
        actor: Actor,
        *,
        life: float | None = None,
    ) -> HoldRow:
        """Hold a manifest for `life` seconds, or until the hold is removed if None.

        A manifest can have several holds. Raises NotFoundError if the manifest does not exist, and
        InputInvalidError for an invalid reason.
        """
        if not reason.strip() or len(reason) > LONGEST_REASON or "\0" in reason:
            raise InputInvalidError(
                f"the reason of a hold must have 1 to {LONGEST_REASON} characters"
            )

        def work(tx: Transaction) -> HoldRow:
            # Deletions lock the repository exclusively, so none can be in progress.
            repository = repositories.find(tx, name, keep=True)
            if repository is None or not manifests.list_present(tx, repository, [digest]):
                raise NotFoundError(f"no manifest {digest} in {name}")
            row = holds.insert(tx, repository.id, digest, reason, life)
            record(tx, actor, Event.HOLD_CREATE, f"{name}@{digest}", hold=row.id, reason=reason)
            return row

        return await self._db.write(work, actor=actor.name)

    async def remove(self, hold_id: int, actor: Actor) -> None:
        """Remove a hold. If nothing else retains the manifest, its grace period starts.

        Raises NotFoundError.
        """

        def work(tx: Transaction) -> None:
            row = holds.find(tx, hold_id)
            if row is None or not holds.delete(tx, hold_id):
                raise _unknown(hold_id)
            target = f"{row.repository}@{row.digest}"
            record(tx, actor, Event.HOLD_DELETE, target, hold=row.id, reason=row.reason)

        await self._db.write(work, actor=actor.name)


def _unknown(hold_id: int) -> NotFoundError:
    return NotFoundError(f"no hold {hold_id}")
