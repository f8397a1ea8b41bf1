"""Listing, copies and deletion of tags."""

from registry.auth.audit_log import Actor
from registry.auth.policy.principals import Principal
from registry.errors import ConflictError, ManifestUnknownError
from registry.metadata.content import blobs, manifest_edges, manifests, repositories, tags
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.oci.manifests import parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.content import removal
from registry.services.content.manifest_edges import resolve
from registry.services.content.manifests import ALL_RIGHTS, TagRights
from registry.services.content.repositories import find_or_raise
from registry.services.content.settings import ContentSettings
from registry.services.quotas.quotas import require_room
from storage.digest import Digest


class Tags:
    """Tags: mutable names of manifests."""

    def __init__(self, database: Database, settings: ContentSettings) -> None:
        self._db = database
        self._settings = settings

    async def list_names(self, name: RepositoryName, n: int, last: str = "") -> list[str]:
        """Return at most `n` tags after `last`, in byte order. Raises RepositoryUnknownError."""

        def work(tx: Transaction) -> list[str]:
            return tags.list_names(tx, find_or_raise(tx, name), n, last)

        return await self._db.read(work)

    async def copy(
        self,
        source: RepositoryName,
        reference: Reference,
        target: RepositoryName,
        tag: Tag,
        principal: Principal,
        *,
        rights: TagRights = ALL_RIGHTS,
        override: Actor | None = None,
    ) -> Digest:
        """Tag a manifest of `source` in `target`, with all its content. Return its digest.

        Raises RepositoryUnknownError, ManifestUnknownError, QuotaExceededError, DeniedError,
        ProtectedError if the tag is immutable and `override` is not set, and ConflictError if the
        registry is read-only.
        """
        if self._settings.read_only:
            raise ConflictError("the registry is read-only, so no tag can be set")

        def work(tx: Transaction) -> Digest:
            origin = find_or_raise(tx, source)
            row = manifests.find(tx, source, reference)
            if row is None:
                raise ManifestUnknownError(
                    f"no manifest {reference} in {source}", {"reference": str(reference)}
                )
            # The lock keeps the tag from changing between the check of the rights and the write.
            destination = repositories.ensure(tx, target, lock=rights.are_bounded)
            if rights.are_bounded:
                rights.check(tag, tags.find(tx, destination, tag), row.digest)
            if destination.id != origin.id:
                _bring(tx, origin, destination, row.digest)
                require_room(tx, target)
            removal.set_tags(tx, destination, [tag], row.digest, override)
            return row.digest

        return await self._db.write(work, actor=principal.name)

    async def delete(
        self,
        name: RepositoryName,
        tag: Tag,
        principal: Principal,
        *,
        is_admin: bool,
        override: Actor | None = None,
    ) -> Digest:
        """Delete the tag. Return the digest of its manifest, which stays.

        Raises RepositoryUnknownError, ManifestUnknownError, ProtectedError if the tag is immutable
        and `override` is not set, and ConflictError if the registry is read-only or, without
        `is_admin`, if deletion is disabled.
        """
        if self._settings.read_only:
            raise ConflictError("the registry is read-only, so nothing can be deleted")
        if not (self._settings.allow_delete or is_admin):
            raise ConflictError(
                "deletion is disabled (content.allow_delete = false); ask an admin of the "
                "repository"
            )

        def work(tx: Transaction) -> Digest:
            repository = find_or_raise(tx, name, lock=True)
            found = tags.find(tx, repository, tag)
            if found is None:
                raise ManifestUnknownError(
                    f"no tag {tag} in {name}; moorage tag list {name} lists its tags",
                    {"reference": str(tag)},
                )
            removal.delete_tag(tx, repository, tag, override)
            return found

        return await self._db.write(work, actor=principal.name, may_use_reserve=True)


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
        edges = manifest_edges.list_of(tx, row.id) if row else []
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
