"""Edges from a manifest to the content of a repository."""

from registry.metadata.content import blobs, manifests
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.transaction import Transaction
from registry.oci.manifests import Manifest


def named_by(manifest: Manifest) -> list[Edge]:
    """Return the edges to all content of the manifest, unresolved."""
    edges = {Edge("layer", descriptor.digest) for descriptor in manifest.layers}
    edges |= {Edge("entry", descriptor.digest) for descriptor in manifest.entries}
    if manifest.config is not None:
        edges.add(Edge("config", manifest.config.digest))
    return sorted(edges, key=lambda edge: (edge.digest, edge.kind))


def resolve(tx: Transaction, target: RepositoryRow, edges: list[Edge]) -> list[Edge]:
    """Resolve the edges in `target`, whose content may differ from that of their origin."""
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
