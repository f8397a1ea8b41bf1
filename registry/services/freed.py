"""How many bytes come free when manifests of a repository go."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from registry.metadata import graph, holds
from registry.metadata.graph import Node
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import CHUNK, Transaction
from storage.digest import Digest


def measure(
    tx: Transaction,
    repository: RepositoryRow,
    going: Sequence[Digest],
    staying: Collection[Digest],
) -> list[int]:
    """What each manifest of `going` frees beside those before it: itself, what it names and what
    refers to it, unless that is needed elsewhere. `staying` are the manifests that keep a tag; what
    is held stays as well.

    A byte is counted once, so the sum is what is free once all have been collected. What another
    repository has too is not counted. Memory grows with the repository.
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
    """The manifest and all that goes with it, as `measure` counts; none if something keeps it."""
    nodes, kept = _read_nodes(tx, repository, [digest], staying)
    return [node.digest for node in nodes.take(digest, kept)]


def _read_nodes(
    tx: Transaction,
    repository: RepositoryRow,
    going: Sequence[Digest],
    staying: Collection[Digest],
) -> tuple["_Nodes", set[Digest]]:
    """The manifests of the repository, and those that stay."""
    nodes = _Nodes(graph.iter_nodes(tx, repository))
    kept: set[Digest] = set()
    for digest in (*staying, *holds.list_held(tx, repository.id), *nodes.list_roots(going)):
        nodes.take(digest, kept)
    return nodes, kept


class _Nodes:
    """The manifests of a repository, and what goes with each."""

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
        """Manifests that nothing holds, and that stay all the same."""
        return list(self._nodes.keys() - self._held - set(going))

    def take(self, digest: Digest, taken: set[Digest]) -> list[Node]:
        """Take the manifest, and all that goes with it, of what was not taken yet."""
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
    """The places of those manifests that free a blob, and its bytes."""
    places: dict[Digest, int] = {}
    users: Counter[Digest] = Counter()
    ids = list(owners)
    for start in range(0, len(ids), CHUNK):
        for manifest_id, digest in graph.list_blobs(tx, ids[start : start + CHUNK]):
            users[digest] += 1
            place = owners[manifest_id]
            places[digest] = min(place, places.get(digest, place))
    for share in graph.iter_shares(tx, repository, places.keys()):
        if share.users == users[share.digest] and not share.elsewhere:
            yield places[share.digest], share.size
