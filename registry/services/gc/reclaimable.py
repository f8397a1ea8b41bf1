"""Number of bytes that deleting manifests of a repository frees."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from registry.metadata.content import manifest_graph
from registry.metadata.content.manifest_graph import Node
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import CHUNK, Transaction
from registry.metadata.protection import holds
from storage.digest import Digest


def measure(
    tx: Transaction,
    repository: RepositoryRow,
    going: Sequence[Digest],
    staying: Collection[Digest],
) -> list[int]:
    """Return the bytes that each manifest of `going` frees in addition to those before it.

    A manifest frees itself, its descendants and its referrers, unless they are needed elsewhere.
    The manifests of `staying` keep a tag. Manifests with a hold stay as well.

    Each byte is counted once, so the sum is the number of bytes that are free after all manifests
    have been collected. Blobs that another repository also links are not counted. Memory use is
    proportional to the number of manifests in the repository.
    """
    nodes, kept = _read_nodes(tx, repository, going, staying)
    freed: list[int] = []
    owners: dict[int, int] = {}
    for place, digest in enumerate(going):
        taken = nodes.take(digest, kept)
        freed.append(sum(node.size for node in taken))
        owners.update((node.id, place) for node in taken)
    for place, size in _iter_blobs(tx, repository, owners):
        freed[place] += size
    return freed


def list_going(
    tx: Transaction, repository: RepositoryRow, digest: Digest, staying: Collection[Digest]
) -> list[Digest]:
    """Return the manifest and all manifests deleted with it, by the rules of `measure`.

    The list is empty if something keeps the manifest.
    """
    nodes, kept = _read_nodes(tx, repository, [digest], staying)
    return [node.digest for node in nodes.take(digest, kept)]


def _read_nodes(
    tx: Transaction,
    repository: RepositoryRow,
    going: Sequence[Digest],
    staying: Collection[Digest],
) -> tuple["_Nodes", set[Digest]]:
    """Return the manifests of the repository, and the digests of those that stay."""
    nodes = _Nodes(manifest_graph.iter_nodes(tx, repository))
    kept: set[Digest] = set()
    for digest in (*staying, *holds.list_held(tx, repository.id), *nodes.list_roots(going)):
        nodes.take(digest, kept)
    return nodes, kept


class _Nodes:
    """The manifest graph of a repository, with the dependents of each manifest."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.digest: node for node in nodes}
        self._below: defaultdict[Digest, list[Digest]] = defaultdict(list)
        self._held: set[Digest] = set()
        for node in self._nodes.values():
            self._below[node.digest] += node.children
            self._held.update(node.children)
            if node.subject in self._nodes:
                self._below[node.subject].append(node.digest)
                self._held.add(node.digest)

    def list_roots(self, going: Collection[Digest]) -> list[Digest]:
        """Return the manifests that no other manifest keeps and that are not in `going`."""
        return list(self._nodes.keys() - self._held - set(going))

    def take(self, digest: Digest, taken: set[Digest]) -> list[Node]:
        """Add the manifest and its dependents to `taken`. Return the new ones."""
        found: list[Node] = []
        waiting = [digest]
        while waiting:
            each = waiting.pop()
            if each in self._nodes and each not in taken:
                taken.add(each)
                found.append(self._nodes[each])
                waiting += self._below[each]
        return found


def _iter_blobs(
    tx: Transaction, repository: RepositoryRow, owners: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield each freed blob as the index of the manifest that frees it and the size in bytes."""
    places: dict[Digest, int] = {}
    users: Counter[Digest] = Counter()
    ids = list(owners)
    for start in range(0, len(ids), CHUNK):
        for manifest_id, digest in manifest_graph.list_blobs(tx, ids[start : start + CHUNK]):
            users[digest] += 1
            place = owners[manifest_id]
            places[digest] = min(place, places.get(digest, place))
    for share in manifest_graph.iter_shares(tx, repository, places.keys()):
        if share.users == users[share.digest] and not share.elsewhere:
            yield places[share.digest], share.size
