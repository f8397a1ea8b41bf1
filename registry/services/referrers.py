"""What refers to a manifest. Source: OCI distribution-spec, Listing Referrers."""

from dataclasses import dataclass

from registry.metadata import manifests, repositories
from registry.metadata.database import Database
from registry.metadata.transaction import Transaction
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.names import RepositoryName
from registry.oci.referrers import page
from storage.digest import Digest

PAGE_BYTES = MAX_MANIFEST_BYTES - 64 * 1024
"""One client reads a single page of at most 4 MiB: a page ends when it would come near."""

_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Referrers:
    """Manifests by their subject."""

    database: Database

    async def list_page(
        self, name: RepositoryName, subject: Digest, artifact_type: str | None, last: str = ""
    ) -> tuple[list[Descriptor], bool]:
        """Referrers after the digest `last`, in digest order, and whether more follow.

        Empty for an unknown subject or repository. An index under the subject's fallback tag adds
        nothing: its entries count only if the subject is their own, and those are found by it.
        """

        def work(tx: Transaction) -> tuple[list[Descriptor], bool]:
            repository = repositories.find(tx, name)
            if repository is None:
                return [], False
            found: list[Descriptor] = []
            more = True
            while more:
                rows = manifests.list_referrers(
                    tx,
                    repository,
                    subject,
                    artifact_type=artifact_type,
                    last=str(found[-1].digest) if found else last,
                    n=_ROWS,
                )
                found += rows
                more = len(rows) == _ROWS
                entries, cut = page(found, PAGE_BYTES)
                if cut:
                    return entries, True
            return found, False

        return await self.database.read(work)
