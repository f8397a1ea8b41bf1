"""What a manifest names, tied to what a repository has."""

from registry.metadata import blobs, manifests
from registry.metadata.manifests import Edge
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import Transaction
from registry.oci.manifests import Manifest


def list_named(manifest: Manifest) -> list[Edge]:
    """What the manifest names, tied to nothing yet."""
    edges = {Edge("layer", descriptor.digest) for descriptor in manifest.layers}
    edges |= {Edge("entry", descriptor.digest) for descriptor in manifest.entries}
    if manifest.config is not None:
        edges.add(Edge("config", manifest.config.digest))
    return sorted(edges, key=lambda edge: (edge.digest, edge.kind))


def tie(tx: Transaction, target: RepositoryRow, edges: list[Edge]) -> list[Edge]:
    """The edges as they are in `target`, which may have what the repository they are from lacks."""
    digests = [edge.digest for edge in edges]
    linked = blobs.list_linked(tx, target, digests)
    entries = [edge.digest for edge in edges if edge.kind == "entry"]
    present = manifests.list_present(tx, target, entries)
    return [
        Edge(
            edge.kind,
            edge.digest,
            blob=edge.digest in linked and edge.digest not in present,
            child=edge.digest in present,
        )
        for edge in edges
    ]
