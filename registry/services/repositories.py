"""Repositories as people see them."""

from collections.abc import Iterable
from dataclasses import dataclass

from registry.auth.books import Actor
from registry.auth.patterns import EVERYTHING, Reach, RepositoryPattern
from registry.auth.principals import Principal
from registry.errors import RepositoryUnknownError
from registry.metadata import repositories
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.repositories import Region, RepositoryCounts, RepositoryRow
from registry.metadata.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.services import removal


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """A repository and what it holds."""

    repository: RepositoryRow
    counts: RepositoryCounts


def read_region(pattern: RepositoryPattern) -> Region:
    """The names that a pattern speaks of."""
    if pattern.reach is Reach.EXACT:
        return Region(pattern.prefix, exact=True)
    start = f"{pattern.prefix}/" if pattern.prefix else ""
    return Region(start, flat=pattern.reach is Reach.CHILDREN)


def find_or_raise(tx: Transaction, name: RepositoryName, *, lock: bool = False) -> RepositoryRow:
    found = repositories.find(tx, name, lock=lock)
    if found is None:
        raise RepositoryUnknownError(f"no repository {name}", {"name": str(name)})
    return found


class Repositories:
    """Listing, looking at and deleting repositories."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_names(
        self, n: int, last: str = "", within: Iterable[RepositoryPattern] = (EVERYTHING,)
    ) -> list[str]:
        """The first `n` names after `last`, in byte order, that a pattern `within` speaks of."""
        regions = [read_region(pattern) for pattern in within]
        return await self._db.read(lambda tx: repositories.list_names(tx, n, last, regions))

    async def get(self, name: RepositoryName) -> RepositorySummary:
        """The repository; RepositoryUnknownError if there is none."""

        def work(tx: Transaction) -> RepositorySummary:
            found = find_or_raise(tx, name)
            return RepositorySummary(found, repositories.count(tx, found))

        return await self._db.read(work)

    async def delete(
        self, name: RepositoryName, principal: Principal, override: Actor | None = None
    ) -> RepositoryCounts:
        """Delete the repository with all that is in it; what it held.

        ProtectedError while something holds a manifest of it, and while a tag of it is immutable
        unless there is somebody to `override` that.
        """

        def work(tx: Transaction) -> RepositoryCounts:
            found = find_or_raise(tx, name, lock=True)
            counts = repositories.count(tx, found)
            removal.delete_repository(tx, found, override)
            return counts

        return await self._db.write(work, actor=principal.name, patience=LONG, frees=True)
