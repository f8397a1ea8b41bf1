"""Listing, resolution and copies of tags."""

from registry.auth.audit_log import Actor
from registry.auth.policy.principals import Principal
from registry.errors import ManifestUnknownError
from registry.metadata.content import blobs, manifests, repositories, tags
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.manifests import parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.content import removal
from registry.services.content.manifest_edges import resolve
from registry.services.content.repositories import find_or_raise
from registry.services.quotas.quotas import require_room
from storage.digest import Digest


class Tags:
    """Tags: mutable names of manifests."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_names(self, name: RepositoryName, n: int, last: str = "") -> list[str]:
        """Return at most `n` tags after `last`, in byte order. Raises RepositoryUnknownError."""

        def work(tx: Transaction) -> list[str]:
            return tags.list_names(tx, find_or_raise(tx, name), n, last)

        return await self._db.read(work)

    async def get(self, name: RepositoryName, tag: Tag) -> Digest:
        """Return the digest that the tag points to.

        Raises RepositoryUnknownError, ManifestUnknownError.
        """

        def work(tx: Transaction) -> Digest:
            found = tags.find(tx, find_or_raise(tx, name), tag)
            if found is None:
                raise ManifestUnknownError(
                    f"no tag {tag} in {name}; moorage tag list {name} lists its tags",
                    {"reference": str(tag)},
                )
            return found

        return await self._db.read(work)

    async def copy(
        self,
        source: RepositoryName,
        reference: Reference,
        target: RepositoryName,
        tag: Tag,
        principal: Principal,
        *,
        override: Actor | None = None,
    ) -> Digest:
        """Tag a manifest of `source` in `target`, with all its content. Return its digest.

        Raises RepositoryUnknownError, ManifestUnknownError, QuotaExceededError, and ProtectedError
        if the tag is immutable and `override` is not set.
        """

        def work(tx: Transaction) -> Digest:
            origin = find_or_raise(tx, source)
            row = manifests.find(tx, source, reference)
            if row is None:
                raise ManifestUnknownError(
                    f"no manifest {reference} in {source}", {"reference": str(reference)}
                )
            destination = repositories.ensure(tx, target)
            if destination.id != origin.id:
                _bring(tx, origin, destination, row.digest)
                require_room(tx, target)
            removal.set_tags(tx, destination, [tag], row.digest, override)
            return row.digest

        return await self._db.write(work, actor=principal.name)


def _bring(tx: Transaction, origin: RepositoryRow, target: RepositoryRow, digest: Digest) -> None:
    """Copy a manifest and its descendants to `target`, children first, each once.

    Edges are resolved against the content of `target`. No recursion: nothing limits how deeply
    indexes are nested, or how often they name the same children. Raises ManifestUnknownError if
    a descendant is not in `origin`.
    """
    waiting, done = [digest], set[Digest]()
    while waiting:
        current = waiting[-1]
        if current in done:
            waiting.pop()
            continue
        row = manifests.find(tx, origin.name, current)
        edges = manifests.list_edges(tx, row) if row else []
        below = [edge.digest for edge in edges if edge.child and edge.digest not in done]
        if below:
            waiting += below
            continue
        # Read last, so that the bytes of an index are read and verified once.
        found = manifests.find_with_bytes(tx, origin.name, current)
        if found is None:
            raise ManifestUnknownError(
                f"no manifest {current} in {origin.name}", {"reference": str(current)}
            )
        for edge in edges:
            if edge.blob:
                blobs.link(tx, target, edge.digest)
        if current not in manifests.list_present(tx, target, [current]):
            manifest = parse_manifest(found.raw, found.row.media_type)
            manifests.put(tx, target, current, manifest, resolve(tx, target, edges))
        done.add(current)
