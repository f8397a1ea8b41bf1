"""Manifests and lists of referrers that were asked for lately, in the memory of one process
(design D8).

Nothing here is ever out of date: whoever looks has read the heads of the registry since his
request began, and before heads are told, what changed up to them is forgotten.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from registry.metadata.heads import Changed
from registry.metadata.manifests import Found
from registry.oci.names import RepositoryName
from registry.oci.references import Reference
from storage.digest import Digest

OVERHEAD = 1024
"""Bytes that an entry takes beside the manifest, about."""

_SHARE = 16
"""A manifest may take this part of the room at most."""


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """A page of a list of referrers: the index of its `count` entries, and the last digest on it
    where more follow.
    """

    raw: bytes
    count: int
    last: str | None


PageKey = tuple[Digest, str | None, str]
"""Subject, artifact type to filter by, and the digest before the page."""


@dataclass(slots=True, eq=False)
class Shelf:
    """What is known of one repository. One that has been forgotten may still be written to, by
    those who began to read before: nobody looks there any more.
    """

    found: dict[Digest, Found] = field(default_factory=dict)
    tags: dict[str, Found] = field(default_factory=dict)
    pages: dict[PageKey, ReferrersPage] = field(default_factory=dict)
    size: int = 0

    def find(self, reference: Reference) -> Found | None:
        if isinstance(reference, Digest):
            return self.found.get(reference)
        return self.tags.get(str(reference))

    def put(self, reference: Reference, found: Found) -> int:
        """Keep it; how many bytes that takes."""
        taken = 0
        if found.row.digest not in self.found:
            self.found[found.row.digest] = replace(found, tagged_at=None)
            taken += OVERHEAD + len(found.raw)
        if not isinstance(reference, Digest) and str(reference) not in self.tags:
            # The bytes are shared with the manifest's own entry.
            raw = self.found[found.row.digest].raw
            self.tags[str(reference)] = replace(found, raw=raw)
            taken += OVERHEAD
        self.size += taken
        return taken


class ManifestCache:
    """At most `room` bytes; what was not asked for goes first, a repository at a time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._size = 0
        self._shelves: OrderedDict[RepositoryName, Shelf] = OrderedDict()

    def shelf(self, name: RepositoryName) -> Shelf:
        """The repository's shelf as it is now. To be taken before the database is read: what
        changes meanwhile takes it away, and what was read is not kept.
        """
        shelf = self._shelves.get(name)
        if shelf is None:
            shelf = self._shelves[name] = Shelf()
        self._shelves.move_to_end(name)
        return shelf

    def put(self, name: RepositoryName, shelf: Shelf, reference: Reference, found: Found) -> None:
        """Keep what was read on a shelf that was taken before."""
        if self._shelves.get(name) is not shelf or len(found.raw) + OVERHEAD > self._room // _SHARE:
            return
        self._grow(shelf.put(reference, found))

    def put_page(
        self, name: RepositoryName, shelf: Shelf, key: PageKey, page: ReferrersPage
    ) -> None:
        """Keep a page of referrers, as `put` keeps a manifest. Subjects without any are not kept:
        there is no end of them.
        """
        taken = len(page.raw) + len(key[1] or "") + OVERHEAD
        if not page.count or self._shelves.get(name) is not shelf or taken > self._room // _SHARE:
            return
        if key not in shelf.pages:
            shelf.pages[key] = page
            shelf.size += taken
            self._grow(taken)

    def _grow(self, taken: int) -> None:
        self._size += taken
        while self._size > self._room:
            self._drop(next(iter(self._shelves)))

    def leave(self, name: RepositoryName, shelf: Shelf) -> None:
        """Take an empty shelf away: names that are asked for in vain take no room."""
        if not shelf.size and self._shelves.get(name) is shelf:
            self._drop(name)

    def forget(self, changed: Changed) -> None:
        """Forget repositories; all of them if it is not known which."""
        for name in list(self._shelves) if changed is None else changed & self._shelves.keys():
            self._drop(name)

    def _drop(self, name: RepositoryName) -> None:
        self._size -= self._shelves.pop(name).size
