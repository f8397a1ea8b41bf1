"""What a tag pointed at, and back to it.

The change feed is the history of tags: its rows of tags stay. Manifests that were deleted are kept
for a grace, and so are the blobs that they named.
"""

from dataclasses import dataclass
from enum import StrEnum

from registry.auth.books import Actor, Event, note
from registry.errors import (
    ConflictError,
    ManifestContentMissingError,
    ManifestUnknownError,
    RepositoryUnknownError,
)
from registry.metadata import blobs, changes, manifests, removed_manifests, repositories, tags
from registry.metadata.blobs import BlobState
from registry.metadata.call import LONG
from registry.metadata.changes import ChangeRow
from registry.metadata.database import Database
from registry.metadata.removed_manifests import RemovedManifest
from registry.metadata.repositories import RepositoryRow
from registry.metadata.transaction import Transaction
from registry.oci.manifests import parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services import removal
from registry.services.quotas import require_room
from registry.services.ties import list_named, tie
from storage.digest import Digest


class ManifestState(StrEnum):
    """What has become of a manifest."""

    HERE = "here"
    # Deleted a short while ago.
    RESTORABLE = "restorable"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Moment:
    """A change of a tag, and what has become since of the manifest that it pointed at from then on;
    None: at none.
    """

    change: ChangeRow
    state: ManifestState | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a tag points at now; how many manifests were put back for that, itself included."""

    digest: Digest
    manifests: int


class History:
    """Tags through time."""

    def __init__(self, database: Database, *, read_only: bool = False) -> None:
        """`read_only`: nothing is restored."""
        self._db = database
        self._read_only = read_only

    async def list_of_tag(self, name: RepositoryName, tag: Tag, n: int) -> list[Moment]:
        """The latest `n` changes of the tag, newest first, with the ends of the repositories that
        it was in; RepositoryUnknownError if there never were any.
        """

        def work(tx: Transaction) -> list[Moment]:
            rows = changes.list_of_tag(tx, name, tag, n)
            ends = [changes.find_end(tx, generation) for generation in {r.generation for r in rows}]
            rows += [end for end in ends if end is not None]
            states = find_states(tx, name, [row.digest for row in rows if row.digest])
            rows.sort(key=lambda row: row.number, reverse=True)
            return [Moment(row, states[row.digest] if row.digest else None) for row in rows]

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
        """Let the tag point again at what it did at a moment, in microseconds; at the manifest of
        a digest; or, without either, at what it did before it moved or went.

        A manifest that was deleted is put back with all below it; a repository that was deleted is
        born anew. Raises ConflictError where that is refused, RepositoryUnknownError for what was
        never tagged so, ManifestUnknownError for a tag that was not there then or whose manifest
        has gone for good, ManifestContentMissingError, QuotaExceededError, and ProtectedError where
        the tag is immutable, unless that is to be overridden; nothing is changed then.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing is restored")

        def work(tx: Transaction) -> Restored:
            repository = repositories.ensure(tx, name, lock=True)
            now = tags.find(tx, repository, tag)
            wanted = digest or _find_before(tx, name, tag, at, now)
            put_back = _put_back(tx, repository, wanted)
            if put_back:
                require_room(tx, name)
            if wanted != now:
                removal.set_tags(tx, repository, [tag], wanted, actor if override else None)
            note(tx, actor, Event.TAG_RESTORE, f"{name}:{tag}", digest=str(wanted))
            return Restored(wanted, put_back)

        return await self._db.write(work, actor=actor.name, patience=LONG)

    async def restore_manifest(self, name: RepositoryName, digest: Digest, actor: Actor) -> int:
        """Put a deleted manifest back, with all below it that was deleted; how many. Raises as
        `restore`.
        """
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing is restored")

        def work(tx: Transaction) -> int:
            count = _put_back(tx, repositories.ensure(tx, name, lock=True), digest)
            if count:
                require_room(tx, name)
            return count

        return await self._db.write(work, actor=actor.name, patience=LONG)


def _never(name: RepositoryName, tag: Tag) -> RepositoryUnknownError:
    return RepositoryUnknownError(
        f"there is no tag {tag} in the history of {name}", {"tag": f"{name}:{tag}"}
    )


def find_states(
    tx: Transaction, name: RepositoryName, digests: list[Digest]
) -> dict[Digest, ManifestState]:
    """What has become of manifests of repositories of that name."""
    repository = repositories.find(tx, name)
    states = dict.fromkeys(digests, ManifestState.GONE)
    for digest in removed_manifests.list_digests(tx, name, digests):
        states[digest] = ManifestState.RESTORABLE
    if repository is not None:
        for digest in manifests.list_present(tx, repository, digests):
            states[digest] = ManifestState.HERE
    return states


def _find_before(
    tx: Transaction, name: RepositoryName, tag: Tag, at: int | None, now: Digest | None
) -> Digest:
    """What the tag pointed at at that moment, or before it points at what it does `now`."""
    last = changes.find_of_tag_at(tx, name, tag, None)
    if last is None:
        raise _never(name, tag)
    if at is None:
        before = changes.find_digest_before(tx, name, tag, now)
        if before is None:
            raise ManifestUnknownError(f"{name}:{tag} never was anything else")
        return before
    then = changes.find_of_tag_at(tx, name, tag, at)
    end = changes.find_end(tx, then.generation) if then else None
    if then is None or then.digest is None or (end is not None and end.at <= at):
        raise ManifestUnknownError(f"{name}:{tag} was not there then")
    return then.digest


def _put_back(tx: Transaction, repository: RepositoryRow, digest: Digest) -> int:
    """Put a manifest and all below it back, children first, where they are not there any more; how
    many. Not by recursion: nobody bounds how deep indexes stand in indexes.
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
        manifests.put(tx, repository, current, manifest, tie(tx, repository, list_named(manifest)))
        count += 1
    return count


def _find_removed(tx: Transaction, name: RepositoryName, digest: Digest) -> RemovedManifest:
    removed = removed_manifests.find(tx, name, digest)
    if removed is None or Digest.of(removed.raw, digest.algorithm) != digest:
        raise ManifestUnknownError(
            f"the manifest {digest} has gone: deleted ones are kept for the time of gc.grace",
            {"digest": str(digest)},
        )
    return removed


def _link(tx: Transaction, repository: RepositoryRow, digests: frozenset[Digest]) -> None:
    """Link blobs that belonged to a repository of this name, where they are not linked any more;
    ManifestContentMissingError names those that have gone or are damaged.
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
