"""Rules for immutable tags: tags that cannot be moved or deleted."""

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConflictError, NotFoundError
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import immutable_tags
from registry.metadata.protection.immutable_tags import ImmutableRow
from registry.oci.tag_patterns import TagPattern

__all__ = ["ImmutableRow", "ImmutableTags"]


class ImmutableTags:
    """Management of the rules. `registry.services.content.removal` enforces them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_page(self, n: int, last: int = 0) -> list[ImmutableRow]:
        """Return at most `n` rules after the id `last`."""
        return await self._db.read(lambda tx: immutable_tags.list_page(tx, n, last))

    async def add(self, pattern: RepositoryPattern, tags: TagPattern, actor: Actor) -> ImmutableRow:
        """Make matching tags immutable in the repositories of the pattern.

        The rule is in force when this returns. Raises ConflictError if the rule exists.
        """

        def work(tx: Transaction) -> ImmutableRow:
            immutable_tags.lock(tx)
            row = immutable_tags.insert(tx, str(pattern), str(tags))
            if row is None:
                raise ConflictError(f"tags {tags} are already immutable in {pattern}")
            record(tx, actor, Event.IMMUTABLE_CREATE, str(pattern), tags=str(tags))
            return row

        return await self._db.write(work, actor=actor.name)

    async def remove(self, pattern: RepositoryPattern, tags: TagPattern, actor: Actor) -> None:
        """Remove a rule. Raises NotFoundError."""

        def work(tx: Transaction) -> None:
            if not immutable_tags.delete(tx, str(pattern), str(tags)):
                raise NotFoundError(f"no rule makes tags {tags} immutable in {pattern}")
            record(tx, actor, Event.IMMUTABLE_DELETE, str(pattern), tags=str(tags))

        await self._db.write(work, actor=actor.name)
