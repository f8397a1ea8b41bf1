"""What refers to a manifest. Source: OCI distribution-spec, Listing Referrers."""

from dataclasses import dataclass

from registry.metadata import manifests, repositories
from registry.metadata.database import Database
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import Transaction
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import MAX_MANIFEST_BYTES, Kind, parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.referrers import fallback_tag, page
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

        Empty for an unknown subject or repository. Artifacts in an index under the subject's
        fallback tag count while their manifests are here.
        """

        def work(tx: Transaction) -> tuple[list[Descriptor], bool]:
            repository = repositories.find(tx, name)
            if repository is None:
                return [], False
            legacy = [
                entry
                for entry in _list_fallback(tx, repository, subject)
                if str(entry.digest) > last and artifact_type in {None, entry.artifact_type}
            ]
            found: dict[Digest, Descriptor] = {}
            after, more = last, True
            while more:
                rows = manifests.list_referrers(
                    tx, repository, subject, artifact_type=artifact_type, last=after, n=_ROWS
                )
                found.update((row.digest, row) for row in rows)
                more = len(rows) == _ROWS
                after = str(rows[-1].digest) if rows else after
                entries, cut = page(_merge(found, legacy, after if more else None), PAGE_BYTES)
                if cut:
                    return entries, True
            return page(_merge(found, legacy, None), PAGE_BYTES)

        return await self.database.read(work)


def _merge(
    found: dict[Digest, Descriptor], legacy: list[Descriptor], until: str | None
) -> list[Descriptor]:
    """Both kinds in digest order, none beyond `until`: what lies there is not read yet."""
    together = {entry.digest: entry for entry in legacy} | found
    ordered = sorted(together.values(), key=lambda entry: str(entry.digest))
    return [entry for entry in ordered if until is None or str(entry.digest) <= until]


def _list_fallback(tx: Transaction, repository: RepositoryRow, subject: Digest) -> list[Descriptor]:
    """Entries of the subject's fallback tag index whose manifests are in the repository."""
    found = manifests.find_whole(tx, repository.name, fallback_tag(subject))
    if found is None:
        return []
    index = parse_manifest(found.raw, found.row.media_type)
    if index.kind is not Kind.INDEX:
        return []
    present = manifests.list_present(tx, repository, [entry.digest for entry in index.entries])
    return [
        Descriptor(it.media_type, it.digest, it.size, it.artifact_type, entry.annotations)
        for entry in index.entries
        if (it := present.get(entry.digest))
    ]
