"""Storage usage of repositories, tags and namespaces, and the bytes that deletions would free."""

from collections.abc import Collection

from msgspec import Struct

from registry.errors import ManifestUnknownError
from registry.metadata.content import tags, usage
from registry.metadata.content.usage import Reclaimable, StorageTotals, UsageShare
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content.repositories import find_or_raise

__all__ = ["Reclaimable", "Report", "StorageTotals", "Usage", "UsageShare"]


class Report(Struct, frozen=True):
    """Usage report. Lists are sorted by size, largest first."""

    stored: StorageTotals
    repositories: list[UsageShare]
    tags: list[UsageShare]
    namespaces: list[UsageShare]


class Usage:
    """Usage reports. Their queries scan the whole registry."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def report(self, n: int) -> Report:
        """Return the totals, with the `n` largest entries of each kind."""

        def work(tx: Transaction) -> Report:
            return Report(
                usage.measure(tx),
                usage.list_repositories(tx, n),
                usage.list_tags(tx, n),
                usage.list_namespaces(tx, n),
            )

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)

    async def measure_freed(self, gone: Collection[tuple[RepositoryName, Tag]]) -> Reclaimable:
        """Return what deleting these tags, and everything only they need, would free.

        Raises RepositoryUnknownError, and ManifestUnknownError for a tag that does not exist.
        """

        def work(tx: Transaction) -> Reclaimable:
            for name, tag in gone:
                if tags.find(tx, find_or_raise(tx, name), tag) is None:
                    raise ManifestUnknownError(f"no tag {name}:{tag}", {"reference": str(tag)})
            return usage.measure_freed(tx, gone)

        return await self._db.read(work, timeout_s=LONG_TIMEOUT_S)
