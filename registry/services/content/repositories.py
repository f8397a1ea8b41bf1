"""Listing, description and deletion of repositories."""

from collections.abc import Iterable

from msgspec import Struct

from registry.auth.audit_log import Actor
from registry.auth.policy.patterns import EVERYTHING, PatternScope, RepositoryPattern
from registry.auth.policy.principals import Principal
from registry.errors import ConflictError, RepositoryUnknownError
from registry.metadata.content import repositories
from registry.metadata.content.repositories import NameRange, RepositoryCounts, RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services.content import removal


class RepositorySummary(Struct, frozen=True):
    """A repository with the number of its tags, manifests and blobs."""

    repository: RepositoryRow
    counts: RepositoryCounts


def read_region(pattern: RepositoryPattern) -> NameRange:
    """Return the range of repository names that a pattern matches."""
    if pattern.reach is PatternScope.EXACT:
        return NameRange(pattern.prefix, exact=True)
    start = f"{pattern.prefix}/" if pattern.prefix else ""
    return NameRange(start, direct_children_only=pattern.reach is PatternScope.CHILDREN)


def find_or_raise(tx: Transaction, name: RepositoryName, *, lock: bool = False) -> RepositoryRow:
    found = repositories.find(tx, name, lock=lock)
    if found is None:
        raise RepositoryUnknownError(f"no repository {name}", {"name": str(name)})
    return found


class Repositories:
    """Listing, description and deletion of repositories."""

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        self._db = database
        self._read_only = read_only

    async def list_names(
        self, n: int, last: str = "", within: Iterable[RepositoryPattern] = (EVERYTHING,)
    ) -> list[str]:
        """Return the first `n` names after `last` that match `within`, in byte order."""
        regions = [read_region(pattern) for pattern in within]
        return await self._db.read(lambda tx: repositories.list_names(tx, n, last, regions))

    async def get(self, name: RepositoryName) -> RepositorySummary:
        """Return the repository with its counts. Raises RepositoryUnknownError."""

        def work(tx: Transaction) -> RepositorySummary:
            found = find_or_raise(tx, name)
            return RepositorySummary(found, repositories.count(tx, found))

        return await self._db.read(work)

    async def delete(
        self, name: RepositoryName, principal: Principal, override: Actor | None = None
    ) -> RepositoryCounts:
        """Delete the repository with all its content. Return what it contained.

        Raises RepositoryUnknownError, ProtectedError while one of its manifests has a hold or,
        without `override`, while one of its tags is immutable, and ConflictError if the registry is
        read-only.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be deleted")

        def work(tx: Transaction) -> RepositoryCounts:
            found = find_or_raise(tx, name, lock=True)
            counts = repositories.count(tx, found)
            removal.delete_repository(tx, found, override)
            return counts

        return await self._db.write(
            work, actor=principal.name, timeout_s=LONG_TIMEOUT_S, may_use_reserve=True
        )
