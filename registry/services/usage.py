"""Usage: who has how many bytes, and what deleting would free."""

from collections.abc import Collection
from dataclasses import dataclass

from registry.errors import ManifestUnknownError
from registry.metadata import tags, usage
from registry.metadata.call import LONG
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.metadata.usage import Freed, Share, Stored
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.repositories import find_or_raise

__all__ = ["Freed", "Report", "Share", "Stored", "Usage"]


@dataclass(frozen=True, slots=True)
class Report:
    """Those that have most, the largest first."""

    stored: Stored
    repositories: list[Share]
    tags: list[Share]
    namespaces: list[Share]


class Usage:
    """Looks at everything; nobody waits for it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def report(self, n: int) -> Report:
        """What there is, with the `n` largest of each kind."""

        def work(tx: Transaction) -> Report:
            return Report(
                usage.measure(tx),
                usage.list_repositories(tx, n),
                usage.list_tags(tx, n),
                usage.list_namespaces(tx, n),
            )

        return await self._db.read(work, patience=LONG)

    async def measure_freed(self, gone: Collection[tuple[RepositoryName, Tag]]) -> Freed:
        """What would go if these tags went, and what nothing refers to then with them.

        RepositoryUnknownError, ManifestUnknownError for a tag that is not there.
        """

        def work(tx: Transaction) -> Freed:
            for name, tag in gone:
                if tags.find(tx, find_or_raise(tx, name), tag) is None:
                    raise ManifestUnknownError(
                        f"there is no tag {name}:{tag}", {"reference": str(tag)}
                    )
            return usage.measure_freed(tx, gone)

        return await self._db.read(work, patience=LONG)
