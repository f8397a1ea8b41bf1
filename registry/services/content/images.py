"""Deletion of images: a manifest with its tags and everything that only it needs."""

from msgspec import Struct

from registry.auth.audit_log import Actor
from registry.errors import ConflictError, ManifestUnknownError
from registry.metadata.content import manifests, repositories, tags
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import usage_of_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.content import removal
from registry.services.content.repositories import find_or_raise
from registry.services.gc import reclaimable
from storage.digest import Digest

_SECOND = 1_000_000

_SHOWN = 20
"""Maximum number of tags in an error message."""


class DeletedImage(Struct, frozen=True):
    """The result of a deletion or dry run.

    `bytes` become free after `free_at` (microseconds), unless the content is referenced again by
    then.
    """

    digest: Digest
    tags: list[str]
    manifests: list[Digest]
    bytes: int
    free_at: int


class Images:
    """Deletion of images."""

    def __init__(self, database: Database, *, grace: float, read_only: bool = False) -> None:
        """Create the service. Bytes of deleted content become free after `grace` seconds."""
        self._db = database
        self._grace = int(grace * _SECOND)
        self._read_only = read_only

    async def delete(
        self,
        name: RepositoryName,
        reference: Reference,
        actor: Actor,
        *,
        all_tags: bool = False,
        override: bool = False,
        dry_run: bool = False,
    ) -> DeletedImage:
        """Delete a manifest with its tags and with dependent manifests that nothing else needs.

        Dependent manifests are its children and its referrers. Raises RepositoryUnknownError,
        ManifestUnknownError, and ConflictError if the manifest has tags other than `reference` and
        `all_tags` is not set. Raises ManifestInUseError and ProtectedError as `Manifests.delete`.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be deleted")
        # Measured before the lock is taken, because it reads all manifests of the repository.
        planned = await self._db.read(
            lambda tx: self._plan(tx, name, reference, all_tags=all_tags), timeout_s=LONG_TIMEOUT_S
        )
        if dry_run:
            return planned

        def work(tx: Transaction) -> list[Digest]:
            repository = repositories.find(tx, name, lock=True)
            digest = _find(tx, repository, name, reference)
            if repository is None or digest != planned.digest:
                raise ConflictError(
                    f"{name}:{reference} changed during the request; check it and try again"
                )
            _require_named(tx, repository, digest, reference, all_tags=all_tags)
            return _delete(tx, repository, planned, actor if override else None)

        gone = await self._db.write(
            work, actor=actor.name, timeout_s=LONG_TIMEOUT_S, may_use_reserve=True
        )
        return DeletedImage(planned.digest, planned.tags, gone, planned.bytes, planned.free_at)

    def _plan(
        self, tx: Transaction, name: RepositoryName, reference: Reference, *, all_tags: bool
    ) -> DeletedImage:
        repository = find_or_raise(tx, name)
        digest = _find(tx, repository, name, reference)
        _require_named(tx, repository, digest, reference, all_tags=all_tags)
        staying = tags.list_digests(tx, repository) - {digest}
        below = [
            each
            for each in reclaimable.list_going(tx, repository, digest, staying)
            if each != digest
        ]
        [size] = reclaimable.measure(tx, repository, [digest], staying)
        return DeletedImage(
            digest,
            tags.list_of(tx, repository, digest),
            [digest, *below],
            size,
            usage_of_tags.read_now(tx) + self._grace,
        )


def _find(
    tx: Transaction, repository: RepositoryRow | None, name: RepositoryName, reference: Reference
) -> Digest:
    row = manifests.find(tx, name, reference) if repository is not None else None
    if row is None:
        what = "tag" if isinstance(reference, Tag) else "manifest"
        raise ManifestUnknownError(
            f"no {what} {reference} in {name}; moorage tag list {name} lists its tags",
            {"reference": str(reference)},
        )
    return row.digest


def _require_named(
    tx: Transaction,
    repository: RepositoryRow,
    digest: Digest,
    reference: Reference,
    *,
    all_tags: bool,
) -> None:
    """Raise ConflictError if the image has tags that the caller did not name."""
    others = [tag for tag in tags.list_of(tx, repository, digest) if tag != str(reference)]
    if others and not all_tags:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise ConflictError(
            f"the image has other tags: {', '.join(others[:_SHOWN])}{more}. To delete it "
            "with all its tags, add --all-tags (all_tags); to delete only one tag, use "
            "moorage tag delete",
            {"tags": others[:_SHOWN]},
        )


def _delete(
    tx: Transaction, repository: RepositoryRow, planned: DeletedImage, override: Actor | None
) -> list[Digest]:
    """Delete the manifest and the others that nothing needs. Return the deleted ones."""
    gone: list[Digest] = []
    waiting = planned.manifests
    while waiting:
        left: list[Digest] = []
        for digest in waiting:
            row = manifests.find(tx, repository.name, digest)
            if row is None:
                continue
            if digest != planned.digest and _is_needed(tx, repository, digest):
                left.append(digest)
                continue
            removal.delete_manifest(tx, repository, row, override)
            gone.append(digest)
        # Deleting a manifest may make others unneeded, so repeat until nothing changes.
        waiting = left if len(left) < len(waiting) else []
    return gone


def _is_needed(tx: Transaction, repository: RepositoryRow, digest: Digest) -> bool:
    return bool(
        tags.list_of(tx, repository, digest)
        or manifests.list_parents(tx, repository, digest)
        or removal.find_protected_manifests(tx, repository, [digest])
    )
