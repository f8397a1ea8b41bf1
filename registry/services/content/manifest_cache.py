"""In-memory cache of manifests and referrer pages of one process (docs/adr/0009).

Entries are never stale. A reader first obtains the current revisions of the registry, as of the
start of its request or later. Entries of repositories that changed up to these revisions are
removed before the revisions are returned.
"""

from collections import OrderedDict

from msgspec import Struct, field
from msgspec.structs import replace

from registry.metadata.content.manifests import StoredManifest
from registry.metadata.revisions.revisions import Changed
from registry.oci.names import RepositoryName
from registry.oci.references import Reference
from storage.digest import Digest

OVERHEAD = 1024
"""Approximate overhead per entry, in bytes, in addition to the manifest."""

_SHARE = 16
"""A manifest larger than the capacity divided by this number is not cached."""


class ReferrersPage(Struct, frozen=True):
    """A page of the referrers list.

    `raw` is the index, `count` the number of its entries. `last` is the last digest on the page if
    more pages follow.
    """

    raw: bytes
    count: int
    last: str | None


PageKey = tuple[Digest, str | None, str]
"""Subject, artifact type to filter by, and the last digest of the previous page."""


class RepositoryEntries(Struct, eq=False):
    """The cached entries of one repository.

    Readers that started before an invalidation may still write to the removed object. That is
    harmless, because the cache no longer refers to it.
    """

    found: dict[Digest, StoredManifest] = field(default_factory=dict)
    tags: dict[str, StoredManifest] = field(default_factory=dict)
    pages: dict[PageKey, ReferrersPage] = field(default_factory=dict)
    size: int = 0

    def find(self, reference: Reference) -> StoredManifest | None:
        if isinstance(reference, Digest):
            return self.found.get(reference)
        return self.tags.get(str(reference))

    def put(self, reference: Reference, found: StoredManifest) -> int:
        """Add an entry. Return the bytes that it takes."""
        taken = 0
        if found.row.digest not in self.found:
            self.found[found.row.digest] = replace(found, tagged_at=None)
            taken += OVERHEAD + len(found.raw)
        if not isinstance(reference, Digest) and str(reference) not in self.tags:
            # Share the bytes with the entry of the digest.
            raw = self.found[found.row.digest].raw
            self.tags[str(reference)] = replace(found, raw=raw)
            taken += OVERHEAD
        self.size += taken
        return taken


class ManifestCache:
    """A cache of at most `capacity` bytes. Evicts the least recently used repository."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._repositories: OrderedDict[RepositoryName, RepositoryEntries] = OrderedDict()

    def entries_of(self, name: RepositoryName) -> RepositoryEntries:
        """Return the current entries of a repository. Creates them if there are none.

        Call this before reading the database. An invalidation in between replaces the object, so
        that a stale result is not cached.
        """
        entries = self._repositories.get(name)
        if entries is None:
            entries = self._repositories[name] = RepositoryEntries()
        self._repositories.move_to_end(name)
        return entries

    def put(
        self,
        name: RepositoryName,
        entries: RepositoryEntries,
        reference: Reference,
        found: StoredManifest,
    ) -> None:
        """Cache a manifest, unless the repository was invalidated since `entries` were obtained."""
        if (
            self._repositories.get(name) is not entries
            or len(found.raw) + OVERHEAD > self._capacity // _SHARE
        ):
            return
        self._grow(entries.put(reference, found))

    def put_page(
        self, name: RepositoryName, entries: RepositoryEntries, key: PageKey, page: ReferrersPage
    ) -> None:
        """Cache a page of referrers, under the same condition as `put`.

        Empty pages are not cached: a client could request any number of subjects without referrers.
        """
        taken = len(page.raw) + len(key[1] or "") + OVERHEAD
        if (
            not page.count
            or self._repositories.get(name) is not entries
            or taken > self._capacity // _SHARE
        ):
            return
        if key not in entries.pages:
            entries.pages[key] = page
            entries.size += taken
            self._grow(taken)

    def _grow(self, taken: int) -> None:
        self._size += taken
        while self._size > self._capacity:
            self._drop(next(iter(self._repositories)))

    def drop_if_empty(self, name: RepositoryName, entries: RepositoryEntries) -> None:
        """Remove the entries of a repository if they are empty.

        Requests for unknown names therefore take no space.
        """
        if not entries.size and self._repositories.get(name) is entries:
            self._drop(name)

    def forget(self, changed: Changed) -> None:
        """Invalidate the given repositories, or all of them if `changed` is None."""
        for name in (
            list(self._repositories) if changed is None else changed & self._repositories.keys()
        ):
            self._drop(name)

    def _drop(self, name: RepositoryName) -> None:
        self._size -= self._repositories.pop(name).size
