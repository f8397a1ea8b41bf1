"""Referrers of a manifest. Source: OCI distribution-spec, Listing Referrers."""

from collections.abc import Iterator

from msgspec import Struct

from registry.metadata.content import referrers, repositories
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.descriptors import Descriptor
from registry.oci.manifests import MAX_MANIFEST_BYTES
from registry.oci.names import RepositoryName
from registry.oci.referrers import IndexBuilder
from registry.services.content.manifest_cache import ManifestCache, ReferrersPage
from storage.digest import Digest

PAGE_BYTES = MAX_MANIFEST_BYTES - 64 * 1024
"""Maximum size of a page, in bytes. Clients read pages of at most 4 MiB."""

READ_BYTES = MAX_MANIFEST_BYTES
"""Maximum bytes of manifests whose annotations are read at once, or one larger manifest."""

_ROWS = 1000


class Referrers(Struct, frozen=True):
    """Lists of manifests by subject."""

    database: Database
    watch: RevisionWatch
    cache: ManifestCache

    async def get_page(
        self,
        name: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        last: str,
        since: float,
    ) -> ReferrersPage:
        """Return a page of referrers after the digest `last`, in digest order.

        The page is as of some time after `since`, from `time.monotonic`. It is empty for an unknown
        subject or repository. An index under the subject's fallback tag adds no entries: an entry
        counts only if its own subject is the requested one, and the lookup by subject finds such
        manifests anyway.
        """
        if self.watch.latest_known(since) is None:
            await self.watch.read(since)
        entries = self.cache.entries_of(name)
        key = (subject, artifact_type, last)
        known = entries.pages.get(key)
        if known is not None:
            return known
        try:
            page = await self.database.read(
                lambda tx: _build_page(tx, name, subject, artifact_type, last),
                timeout_s=LONG_TIMEOUT_S,
            )
            self.cache.put_page(name, entries, key, page)
        finally:
            self.cache.drop_if_empty(name, entries)
        return page


def _build_page(
    tx: Transaction, name: RepositoryName, subject: Digest, artifact_type: str | None, last: str
) -> ReferrersPage:
    repository = repositories.find(tx, name)
    index = IndexBuilder(PAGE_BYTES)
    count, after = 0, last
    entries = _iter_referrers(tx, repository, subject, artifact_type, last) if repository else ()
    for entry in entries:
        if not index.add(entry):
            return ReferrersPage(index.build(), count, after)
        count, after = count + 1, str(entry.digest)
    return ReferrersPage(index.build(), count, None)


def _iter_referrers(
    tx: Transaction,
    repository: RepositoryRow,
    subject: Digest,
    artifact_type: str | None,
    last: str,
) -> Iterator[Descriptor]:
    more = True
    while more:
        rows = referrers.list_page(
            tx, repository, subject, artifact_type=artifact_type, last=last, n=_ROWS
        )
        for some in _iter_batches(rows):
            annotations = referrers.read_annotations(tx, some)
            for row in some:
                yield Descriptor(
                    media_type=row.media_type,
                    digest=row.digest,
                    size=row.size,
                    artifact_type=row.artifact_type,
                    annotations=annotations.get(row.id),
                )
        more = len(rows) == _ROWS
        last = str(rows[-1].digest) if rows else last


def _iter_batches(rows: list[ManifestRow]) -> Iterator[list[ManifestRow]]:
    """Yield the rows in batches of at most `READ_BYTES`.

    The size of a manifest is an upper bound for the size of its annotations.
    """
    batch: list[ManifestRow] = []
    size = 0
    for row in rows:
        if batch and size + row.size > READ_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch
