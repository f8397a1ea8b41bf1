"""Tag history, and restoring tags and deleted manifests.

The change feed is the history of tags: its rows about tags are never trimmed. Deleted manifests,
and the blobs that they refer to, are retained for one grace period.
"""

from enum import StrEnum

from msgspec import Struct

from registry.auth.audit_log import Actor, Event, record
from registry.errors import (
    ConflictError,
    ManifestContentMissingError,
    ManifestUnknownError,
    RepositoryUnknownError,
)
from registry.metadata.content import blobs, manifests, repositories, tags
from registry.metadata.content.blobs import BlobState
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import removed_manifests
from registry.metadata.protection.removed_manifests import RemovedManifest
from registry.metadata.revisions import change_feed
from registry.metadata.revisions.change_feed import ChangeRow
from registry.oci.manifests import parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content import removal
from registry.services.content.manifest_edges import named_by, resolve
from registry.services.quotas.quotas import require_room
from storage.digest import Digest


class ManifestState(StrEnum):
    """Whether a manifest exists, can be restored, or is gone."""

    PRESENT = "present"
    # Deleted less than one grace period ago.
    RESTORABLE = "restorable"
    GONE = "gone"


class TagChange(Struct, frozen=True):
    """A change of a tag, with the current state of the manifest that it pointed to afterwards.

    `state` is None if the change removed the tag.
    """

    change: ChangeRow
    state: ManifestState | None


class Restored(Struct, frozen=True):
    """Result of a restore.

    `digest` is the manifest that the tag points to. `manifests` is the number of manifests that
    were restored for it, including that manifest.
    """

    digest: Digest
    manifests: int


class History:
    """Tag history, and restores of tags and manifests."""

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        """Create the service. With `read_only`, restores are refused."""
        self._db = database
        self._read_only = read_only

    async def list_of_tag(self, name: RepositoryName, tag: Tag, n: int) -> list[TagChange]:
        """Return the latest `n` changes of the tag, newest first.

        The list includes the deletions of the repositories that the tag was in. Raises
        RepositoryUnknownError if the tag never existed.
        """

        def work(tx: Transaction) -> list[TagChange]:
            rows = change_feed.list_of_tag(tx, name, tag, n)
            ends = [
                change_feed.find_end(tx, generation) for generation in {r.generation for r in rows}
            ]
            rows += [end for end in ends if end is not None]
            states = find_states(tx, name, [row.digest for row in rows if row.digest])
            rows.sort(key=lambda row: row.revision, reverse=True)
            return [TagChange(row, states[row.digest] if row.digest else None) for row in rows]

        found = await self._db.read(work)
        if not found:
            raise _never(name, tag)
        return found

    async def restore(
        self,
        name: RepositoryName,
        tag: Tag,
        actor: Actor,
        *,
        at: int | None = None,
        digest: Digest | None = None,
        override: bool = False,
    ) -> Restored:
        """Restore a tag to an earlier target.

        The target is that at the time `at` (microseconds), or `digest`, or, without both, the one
        before the last change of target or deletion.

        A deleted manifest is restored with all its descendants. A deleted repository is created
        again. Nothing changes if an error is raised:

        - ConflictError if the registry is read-only.
        - RepositoryUnknownError if the tag never existed.
        - ManifestUnknownError if the tag did not exist at that time, or its manifest is gone for
          good.
        - ManifestContentMissingError if content of the manifest is gone or damaged.
        - QuotaExceededError.
        - ProtectedError if the tag is immutable and `override` is not set.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be restored")

        def work(tx: Transaction) -> Restored:
            repository = repositories.ensure(tx, name, lock=True)
            now = tags.find(tx, repository, tag)
            wanted = digest or _find_before(tx, name, tag, at, now)
            put_back = _put_back(tx, repository, wanted)
            if put_back:
                require_room(tx, name)
            if wanted != now:
                removal.set_tags(tx, repository, [tag], wanted, actor if override else None)
            record(tx, actor, Event.TAG_RESTORE, f"{name}:{tag}", digest=str(wanted))
            return Restored(wanted, put_back)

        return await self._db.write(work, actor=actor.name, timeout_s=LONG_TIMEOUT_S)

    async def restore_manifest(self, name: RepositoryName, digest: Digest, actor: Actor) -> int:
        """Restore a deleted manifest with its deleted descendants.

        Returns the number of restored manifests. Raises the errors of `restore`.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be restored")

        def work(tx: Transaction) -> int:
            count = _put_back(tx, repositories.ensure(tx, name, lock=True), digest)
            if count:
                require_room(tx, name)
            return count

        return await self._db.write(work, actor=actor.name, timeout_s=LONG_TIMEOUT_S)


def _never(name: RepositoryName, tag: Tag) -> RepositoryUnknownError:
    return RepositoryUnknownError(
        f"no tag {tag} in the history of {name}", {"tag": f"{name}:{tag}"}
    )


def find_states(
    tx: Transaction, name: RepositoryName, digests: list[Digest]
) -> dict[Digest, ManifestState]:
    """Return the state of each manifest in repositories of that name."""
    repository = repositories.find(tx, name)
    states = dict.fromkeys(digests, ManifestState.GONE)
    for digest in removed_manifests.list_digests(tx, name, digests):
        states[digest] = ManifestState.RESTORABLE
    if repository is not None:
        for digest in manifests.list_present(tx, repository, digests):
            states[digest] = ManifestState.PRESENT
    return states


def _find_before(
    tx: Transaction, name: RepositoryName, tag: Tag, at: int | None, now: Digest | None
) -> Digest:
    """Return the target of the tag at the time `at`, or before it pointed to `now`."""
    last = change_feed.find_of_tag_at(tx, name, tag, None)
    if last is None:
        raise _never(name, tag)
    if at is None:
        before = change_feed.find_digest_before(tx, name, tag, now)
        if before is None:
            raise ManifestUnknownError(f"{name}:{tag} has always pointed to the same manifest")
        return before
    then = change_feed.find_of_tag_at(tx, name, tag, at)
    end = change_feed.find_end(tx, then.generation) if then else None
    if then is None or then.digest is None or (end is not None and end.at <= at):
        raise ManifestUnknownError(f"{name}:{tag} did not exist at that time")
    return then.digest


def _put_back(tx: Transaction, repository: RepositoryRow, digest: Digest) -> int:
    """Restore a manifest and its deleted descendants, children first. Return their number.

    The traversal is iterative, because the nesting depth of indexes is unbounded.
    """
    waiting, count = [digest], 0
    while waiting:
        current = waiting[-1]
        if current in manifests.list_present(tx, repository, [current]):
            waiting.pop()
            continue
        removed = _find_removed(tx, repository.name, current)
        children = sorted(removed.children)
        absent = set(children) - manifests.list_present(tx, repository, children).keys()
        if absent:
            waiting += sorted(absent)
            continue
        _link(tx, repository, removed.blobs)
        manifest = parse_manifest(removed.raw, removed.media_type)
        manifests.put(
            tx, repository, current, manifest, resolve(tx, repository, named_by(manifest))
        )
        count += 1
    return count


def _find_removed(tx: Transaction, name: RepositoryName, digest: Digest) -> RemovedManifest:
    removed = removed_manifests.find(tx, name, digest)
    if removed is None or Digest.of(removed.raw, digest.algorithm) != digest:
        raise ManifestUnknownError(
            f"the manifest {digest} is deleted; a deleted manifest can be restored until "
            "gc.grace_period has passed",
            {"digest": str(digest)},
        )
    return removed


def _link(tx: Transaction, repository: RepositoryRow, digests: frozenset[Digest]) -> None:
    """Link the blobs of a deleted manifest to the repository, where they are not linked.

    Raises ManifestContentMissingError with the blobs that are gone or damaged.
    """
    linked = blobs.list_linked(tx, repository, list(digests))
    missing = {digest for digest, state in linked.items() if state is not BlobState.LIVE}
    for digest in sorted(digests - linked.keys()):
        row = blobs.find_anywhere(tx, digest, keep=True)
        if row is None or row.state is not BlobState.LIVE:
            missing.add(digest)
        else:
            blobs.link(tx, repository, digest)
    if missing:
        raise ManifestContentMissingError(sorted(str(digest) for digest in missing))
