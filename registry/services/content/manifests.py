"""Reading, pushing and deleting manifests, each in one transaction."""

import asyncio
from collections.abc import Awaitable, Sequence

from msgspec import Struct

from registry.auth.audit_log import Actor
from registry.auth.policy.principals import OPERATOR, Principal
from registry.errors import (
    DeniedError,
    DigestMismatchError,
    ManifestContentMissingError,
    ManifestUnknownError,
    PreconditionFailedError,
)
from registry.metadata.content import blobs, manifest_graph, manifests, repositories, tags
from registry.metadata.content.blobs import BlobState
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.content.manifests import StoredManifest
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.manifests import Manifest, ManifestKind, parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Reference, Tag
from registry.services.content import removal
from registry.services.content.manifest_cache import ManifestCache
from registry.services.content.manifest_parsing import ON_THREAD
from registry.services.content.settings import ContentSettings
from registry.services.gc.settings import GcSettings
from registry.services.quotas.quotas import NOBODY, require_room
from storage.digest import DEFAULT_ALGORITHM, Digest

__all__ = ["Manifests", "Pushed", "StoredManifest", "TagCondition", "TagRights"]

"""Minimum size, in bytes, for hashing and parsing on a thread."""

_AT_ONCE = 2
"""Number of large manifests processed concurrently. A parsed one takes a multiple of its size."""

_MANY = 100
"""Number of digests above which a manifest's content is checked before taking the write lock."""


class TagCondition(Struct, frozen=True):
    """A precondition on a tag: its target must be in `match`, if given, and not in `other`.

    Both contain digests, or `*` for any. Source: RFC 9110 section 13.1.
    """

    match: tuple[str, ...] | None = None
    other: tuple[str, ...] = ()

    def check(self, current: Digest | None) -> None:
        """Raise PreconditionFailedError unless the condition holds."""
        is_at = {"*", str(current)} if current else set()
        if self.match is not None and is_at.isdisjoint(self.match):
            found = str(current) if current else None
            raise PreconditionFailedError(
                "precondition failed: the tag does not point to that digest", {"digest": found}
            )
        if not is_at.isdisjoint(self.other):
            raise PreconditionFailedError(
                "precondition failed: the tag already exists", {"digest": str(current)}
            )


class TagRights(Struct, frozen=True):
    """Whether a push may create tags, and whether it may move existing tags."""

    create: bool = True
    overwrite: bool = True

    @property
    def are_bounded(self) -> bool:
        return not (self.create and self.overwrite)

    def check(self, tag: Tag, current: Digest | None, digest: Digest) -> None:
        """Raise DeniedError unless the tag may be set to `digest`. An unchanged tag is allowed."""
        if current is None and not self.create:
            raise DeniedError(
                f"creating the tag {tag} requires create",
                {"tag": str(tag), "action": "create"},
            )
        if current is not None and current != digest and not self.overwrite:
            raise DeniedError(
                f"the tag {tag} exists, and moving it requires overwrite",
                {"tag": str(tag), "action": "overwrite"},
            )


ALL_RIGHTS = TagRights()


class Pushed(Struct, frozen=True):
    """Result of a push. `subject` is the subject of the manifest, if it has one."""

    digest: Digest
    subject: Digest | None


def _unknown(name: RepositoryName, reference: Reference) -> ManifestUnknownError:
    kind = "tag" if isinstance(reference, Tag) else "manifest"
    return ManifestUnknownError(f"no {kind} {reference} in {name}", {"reference": str(reference)})


class Manifests:
    """Manifests of repositories."""

    def __init__(
        self,
        database: Database,
        settings: ContentSettings,
        watch: RevisionWatch,
        cache: ManifestCache,
        rules: GcSettings,
    ) -> None:
        self._db = database
        self._settings = settings
        self._rules = rules
        self._watch = watch
        self._cache = cache
        self._large = asyncio.Semaphore(_AT_ONCE)
        watch.subscribe(cache.forget)

    async def get(self, name: RepositoryName, reference: Reference, since: float) -> StoredManifest:
        """Return the manifest as of some time after `since`.

        `since` is the arrival time of the request, from `time.monotonic`. Raises
        ManifestUnknownError.
        """
        if self._watch.latest_known(since) is None:
            await self._watch.read(since)
        entries = self._cache.entries_of(name)
        known = entries.find(reference)
        if known is not None:
            return known
        try:
            found = await self._db.read(
                lambda tx: manifests.find_with_bytes(tx, name, reference), single=True
            )
            if found is None:
                raise _unknown(name, reference)
            self._cache.put(name, entries, reference, found)
        finally:
            self._cache.drop_if_empty(name, entries)
        return found

    def promises(self, name: RepositoryName, reference: Reference) -> bool:
        """Return whether a client that learns of this manifest is promised that it stays.

        A tagged manifest stays anyway.
        """
        return isinstance(reference, Digest) and self._rules.untagged_rules.deletes_untagged(
            str(name)
        )

    async def promise(self, name: RepositoryName, digest: Digest) -> None:
        """Retain the manifest for at least one grace period.

        A client that learns that a manifest exists does not push it. Only needed where untagged
        manifests are deleted. Raises ManifestUnknownError if the manifest is gone.
        """
        if not self.promises(name, digest):
            return
        if await self._db.read(lambda tx: manifests.is_promised(tx, name, digest), single=True):
            return
        if not await self._db.write(
            lambda tx: manifests.touch(tx, name, digest, self._rules.touch_interval),
            actor=OPERATOR.name,
        ):
            raise _unknown(name, digest)

    async def put(
        self,
        name: RepositoryName,
        raw: bytes,
        content_type: str | None,
        principal: Principal,
        *,
        digest: Digest | None = None,
        set_tags: Sequence[Tag] = (),
        condition: TagCondition | None = None,
        rights: TagRights = ALL_RIGHTS,
        override: Actor | None = None,
        sparse: bool = False,
    ) -> Pushed:
        """Store a manifest and point all of `set_tags` at it, atomically.

        If `digest` is given, the manifest must have that digest. `override` is the actor who
        overrides immutable tags. With `sparse`, content that it names may be missing. Nothing is
        stored if an error is raised: ManifestInvalidError, DigestMismatchError,
        ManifestContentMissingError, PreconditionFailedError, DeniedError, QuotaExceededError,
        ProtectedError.
        """

        def store(actual: Digest, manifest: Manifest) -> Awaitable[Pushed]:
            return self._store(
                name,
                actual,
                manifest,
                principal,
                set_tags=set_tags,
                condition=condition,
                rights=rights,
                override=override,
                sparse=sparse or self._may_be_sparse(manifest),
            )

        if len(raw) < ON_THREAD:
            return await store(*_read(raw, content_type, digest))
        async with self._large:
            return await store(*await asyncio.to_thread(_read, raw, content_type, digest))

    async def _store(
        self,
        name: RepositoryName,
        actual: Digest,
        manifest: Manifest,
        principal: Principal,
        *,
        set_tags: Sequence[Tag],
        condition: TagCondition | None,
        rights: TagRights,
        override: Actor | None,
        sparse: bool,
    ) -> Pushed:
        def work(tx: Transaction) -> None:
            # The lock serializes this push with all others of the repository, so that the
            # conditions and the content found missing cannot change before the write.
            looks = condition is not None or rights.are_bounded
            lock = looks or sparse or _names_more(manifest)
            repository = repositories.ensure(tx, name, lock=lock)
            for tag in set_tags if looks else ():
                current = tags.find(tx, repository, tag)
                rights.check(tag, current, actual)
                if condition is not None:
                    condition.check(current)
            edges = _find_edges(tx, repository, manifest, sparse=sparse)
            manifests.put(tx, repository, actual, manifest, edges)
            require_room(tx, name, before=NOBODY)
            removal.set_tags(tx, repository, set_tags, actual, override)

        if not sparse:
            await self._refuse_early(name, manifest)
        await self._db.write(work, actor=principal.name)
        return Pushed(actual, manifest.subject.digest if manifest.subject else None)

    async def _refuse_early(self, name: RepositoryName, manifest: Manifest) -> None:
        """Raise ManifestContentMissingError before the write lock is taken.

        This keeps a long search out of the write transaction. `_find_edges` searches again in that
        transaction, and its result is the authoritative one.
        """
        required = _required(manifest)
        if len(required) <= _MANY:
            return

        def work(tx: Transaction) -> list[Digest]:
            repository = repositories.find(tx, name)
            if repository is None:
                return sorted(required)
            return manifest_graph.list_missing(tx, repository, required)

        missing = await self._db.read(work, timeout_s=LONG_TIMEOUT_S)
        if missing:
            raise ManifestContentMissingError([str(digest) for digest in missing])

    def _may_be_sparse(self, manifest: Manifest) -> bool:
        return (
            self._settings.allow_sparse_index
            if manifest.kind is ManifestKind.INDEX
            else self._settings.allow_sparse_image
        )

    async def delete(
        self,
        name: RepositoryName,
        reference: Reference,
        principal: Principal,
        condition: TagCondition | None = None,
        override: Actor | None = None,
    ) -> None:
        """Delete a single tag, or a manifest with all its tags.

        Raises ManifestUnknownError, ManifestInUseError while a retained index refers to the
        manifest, ProtectedError while the manifest has a hold or, without `override`, for immutable
        tags, and PreconditionFailedError if the condition does not hold.
        """

        def work(tx: Transaction) -> None:
            repository = repositories.find(tx, name, lock=True)
            if repository is None:
                raise _unknown(name, reference)
            if isinstance(reference, Tag):
                current = tags.find(tx, repository, reference)
                if current is None:
                    raise _unknown(name, reference)
                if condition is not None:
                    condition.check(current)
                removal.delete_tag(tx, repository, reference, override)
                return
            row = manifests.find(tx, name, reference)
            if row is None:
                raise _unknown(name, reference)
            removal.delete_manifest(tx, repository, row, override)

        await self._db.write(work, actor=principal.name, may_use_reserve=True)


def _find_edges(
    tx: Transaction, repository: RepositoryRow, manifest: Manifest, *, sparse: bool
) -> list[Edge]:
    """Return the edges of the manifest to the content of the repository.

    Raises ManifestContentMissingError if required content is missing, unless `sparse`.
    """
    parts = [d.digest for d in manifest.layers]
    if manifest.config is not None:
        parts.append(manifest.config.digest)
    entries = [d.digest for d in manifest.entries]
    linked = blobs.list_linked(tx, repository, parts + entries)
    live = {digest for digest, state in linked.items() if state is BlobState.LIVE}
    children = manifests.list_present(tx, repository, entries)
    missing = _required(manifest) - live - children.keys()
    if missing and not sparse:
        raise ManifestContentMissingError(sorted(str(digest) for digest in missing))
    # Damaged blobs get an edge as well: another push heals them.
    edges = {Edge("layer", d.digest, blob=d.digest in linked) for d in manifest.layers}
    if manifest.config is not None:
        digest = manifest.config.digest
        edges.add(Edge("config", digest, blob=digest in linked))
    for digest in entries:
        # An entry may refer to a manifest or a blob, whatever its media type, as in BuildKit
        # caches.
        child = digest in children
        edges.add(Edge("entry", digest, blob=digest in linked and not child, child=child))
    return sorted(edges, key=lambda edge: (edge.digest, edge.kind))


def _read(raw: bytes, content_type: str | None, digest: Digest | None) -> tuple[Digest, Manifest]:
    actual = Digest.of(raw, digest.algorithm if digest else DEFAULT_ALGORITHM)
    if digest is not None and actual != digest:
        raise DigestMismatchError(
            "the manifest does not match this digest",
            {"expected": str(digest), "actual": str(actual)},
        )
    return actual, parse_manifest(raw, content_type)


def _names_more(manifest: Manifest) -> bool:
    """Return whether the manifest refers to content it does not require.

    That is the case for non-distributable layers.
    """
    required = _required(manifest)
    return any(descriptor.digest not in required for descriptor in manifest.layers)


def _required(manifest: Manifest) -> set[Digest]:
    """Return the digests that must exist: all content but non-distributable layers."""
    return {named.digest for named in (*manifest.required_blobs, *manifest.entries)}
