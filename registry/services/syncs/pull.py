"""A sync from the upstream of a mirror into the repositories below its prefix."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.errors import (
    ManifestUnknownError,
    UpstreamDeniedError,
    UpstreamProtocolError,
    UpstreamUnknownError,
)
from registry.metadata.content import blobs, repositories
from registry.metadata.content import tags as tag_rows
from registry.metadata.content.blobs import BlobState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import synced_tags
from registry.oci.descriptors import Descriptor
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content.manifests import Manifests
from registry.services.mirrors.blobs import MirroredBlobs
from registry.services.mirrors.cooldown import Choice, Cooldowns, make_held_error
from registry.services.mirrors.manifests import MirroredManifests
from registry.services.mirrors.mirror import Mirror, Mirrored
from registry.services.mirrors.upstreams import Upstreams
from registry.services.syncs import removals
from registry.services.syncs.failures import Failures
from registry.services.syncs.images import ImageContent, RawManifest, collect
from registry.services.syncs.options import SyncOptions
from registry.services.syncs.patience import for_each, retry
from registry.services.syncs.report import SyncAction, SyncLog
from registry.services.syncs.selectors import REFERRERS_TAG, select_tags
from storage.digest import Digest

if TYPE_CHECKING:
    from registry.client.failover import AnyUpstream

REPOSITORIES_AT_ONCE = 2
TAGS_AT_ONCE = 4
BLOBS_AT_ONCE = 4
"""Number of blobs that a sync fetches at the same time, of those of `mirrors.max_fills`."""


@dataclass(frozen=True, slots=True)
class PullServices:
    """The services that a sync needs."""

    database: Database
    manifests: Manifests
    cooldowns: Cooldowns
    mirrored_manifests: MirroredManifests
    mirrored_blobs: MirroredBlobs
    upstreams: Upstreams


@dataclass(frozen=True, slots=True)
class _PlannedTag:
    """A tag to set. `blobs` are the missing ones.

    `latest` is the digest at the upstream, which differs from `digest` if it is held back.
    """

    at: Mirrored
    tag: Tag
    digest: Digest
    latest: Digest
    blobs: tuple[tuple[Digest, int], ...]


@dataclass(slots=True)
class _Repository:
    """A repository while its plan is made.

    `synced` are the tags that a sync has set. `claimed` are blobs that earlier tags bring, and
    `digests` the manifests of all tags.
    """

    at: Mirrored
    upstream: "AnyUpstream"
    synced: dict[str, Digest]
    claimed: set[Digest] = field(default_factory=set)
    digests: set[Digest] = field(default_factory=set)


class Pull:
    """One run of a sync from the upstream."""

    def __init__(
        self,
        services: PullServices,
        mirror: Mirror,
        options: SyncOptions,
        log: SyncLog,
        *,
        is_dry: bool,
    ) -> None:
        self._services = services
        self._mirror = mirror
        self._options = options
        self._selectors = options.parse_tags()
        self._platforms = options.parse_platforms(mirror.options.platforms)
        self._log = log
        self._is_dry = is_dry
        self._principal = mirror.principal
        self._planned: list[_PlannedTag] = []
        self._removals: list[tuple[Mirrored, Tag, Digest]] = []
        self._failures = Failures(log)
        self._busy = asyncio.Semaphore(BLOBS_AT_ONCE)
        self._locks: dict[tuple[RepositoryName, Digest], asyncio.Lock] = {}

    async def run(self) -> None:
        """Make the plan and, unless the run is dry, carry it out.

        Failures are in the log. Raises errors of the database, and those of an upstream that fails
        altogether.
        """
        await for_each(await self._list_repositories(), self._plan, REPOSITORIES_AT_ONCE)
        self._log.counts.is_planned = True
        self._log.version += 1
        if self._is_dry:
            return
        await for_each(self._planned, self._copy, TAGS_AT_ONCE)
        for removal in self._removals:
            await self._remove(*removal)

    # The plan

    async def _list_repositories(self) -> list[Mirrored]:
        patterns = self._options.parse_repositories()
        named = [RepositoryName.parse(each.prefix) for each in patterns if str(each) == each.prefix]
        if self._options.needs_catalog:
            listed = await retry(self._read_catalog)
            named += [
                name
                for name in listed
                if not patterns or any(each.matches(str(name)) for each in patterns)
            ]
        found = (self._locate(name) for name in named)
        return list({each.name: each for each in found if each is not None}.values())

    async def _read_catalog(self) -> list[RepositoryName]:
        try:
            async with self._services.upstreams.use(self._mirror) as upstream:
                return [name async for name in upstream.iter_repositories()]
        except (UpstreamDeniedError, UpstreamUnknownError, UpstreamProtocolError) as error:
            raise type(error)(
                f"{self._mirror.url} does not list its repositories; name them with --repo "
                f"({error.message})"
            ) from error

    def _locate(self, remote: RepositoryName) -> Mirrored | None:
        local = self._mirror.find_local(remote)
        complete = self._mirror.find_remote(local)
        if complete is None:
            self._log.note(f"{remote}: not mirrored, because of --allow or --deny of the mirror")
            return None
        return Mirrored(self._mirror, local, complete)

    async def _plan(self, at: Mirrored) -> None:
        self._log.counts.repositories += 1
        synced = await self._services.database.read(lambda tx: synced_tags.list_of(tx, at.name))
        async with self._services.upstreams.use(self._mirror) as upstream:
            tags = await self._failures.attempt(
                str(at.remote), lambda: retry(lambda: _list_tags(upstream, at.remote))
            )
            if not tags:
                self._log.note(f"{at.remote}: no list of tags, so nothing is copied or deleted")
                return
            await self._plan_tags(_Repository(at, upstream, synced), tags)
        if self._options.prune:
            await self._plan_removals(at, {str(tag) for tag in tags})

    async def _plan_tags(self, repository: _Repository, tags: list[Tag]) -> None:
        for tag in select_tags(self._selectors, tags):
            await self._plan_tag(repository, tag)
        if self._options.referrers:
            named = {each.hex for each in repository.digests}
            for tag in tags:
                match = REFERRERS_TAG.fullmatch(str(tag))
                if match is not None and match[2] in named:
                    await self._plan_tag(repository, tag)

    async def _plan_tag(self, repository: _Repository, tag: Tag) -> None:
        at, counts = repository.at, self._log.counts
        counts.tags += 1
        found = await self._failures.attempt(
            f"{at.remote}:{tag}", lambda: self._examine(repository, tag)
        )
        if found is None:
            return
        digest, latest, content = found
        repository.digests.update(content.manifests)
        before, missing = await self._find_missing(at, tag, content.blobs)
        new = [each for each in missing if each[0] not in repository.claimed]
        repository.claimed.update(each for each, _ in new)
        if before == digest and not missing and not content.has_new_manifests:
            counts.unchanged += 1
            if not self._is_dry:
                await self._confirm(repository, tag, digest, latest)
            return
        action = SyncAction.COMPLETE if before == digest else SyncAction.MOVE
        action = SyncAction.ADD if before is None else action
        size = sum(size for _, size in new)
        self._log.plan(at.name, tag, action, digest, before=before, size=size)
        self._planned.append(_PlannedTag(at, tag, digest, latest, tuple(missing)))

    async def _examine(
        self, repository: _Repository, tag: Tag
    ) -> tuple[Digest, Digest, ImageContent] | None:
        """Return the image of a tag: its digest, the one at the upstream, and its content.

        They differ during a cooldown of the mirror. Returns None if the tag is held back, or was
        deleted since it was listed.
        """
        try:
            latest = await self._resolve(repository, tag)
        except UpstreamUnknownError:
            return None
        at = repository.at
        choice, cooldowns = Choice(latest), self._services.cooldowns
        if cooldowns.applies_to(at, tag):
            choice = await cooldowns.observe(at, tag, latest, self._principal.name)
        if choice.digest is None:
            self._log.note(make_held_error(at, tag, choice).message)
            return None
        return choice.digest, latest, await self._collect(repository, choice.digest)

    async def _resolve(self, repository: _Repository, tag: Tag) -> Digest:
        remote, upstream = repository.at.remote, repository.upstream
        head = await retry(lambda: upstream.head_manifest(remote, tag))
        if head.digest is not None:
            return head.digest
        return (await retry(lambda: upstream.get_manifest(remote, tag))).digest

    async def _collect(self, repository: _Repository, root: Digest) -> ImageContent:
        """Return the content of an image, with that of its referrers if they are copied."""

        async def read(digest: Digest) -> RawManifest:
            return await self._read(repository, digest)

        content = await collect(read, root, self._platforms)
        if not self._options.referrers:
            return content
        upstream, remote = repository.upstream, repository.at.remote
        waiting, seen = list(content.manifests), set(content.manifests)
        while waiting:
            subject = waiting.pop()
            for each in await _list_referrers(upstream, remote, subject):
                if each.digest in seen:
                    continue
                more = await collect(read, each.digest, self._platforms)
                content.blobs |= more.blobs
                content.has_new_manifests |= more.has_new_manifests
                new = [digest for digest in more.manifests if digest not in seen]
                # A referrer is stored before its subject, which a client pulls first.
                content.manifests = new + content.manifests
                seen.update(new)
                waiting += new
        return content

    async def _read(self, repository: _Repository, digest: Digest) -> RawManifest:
        """Return a manifest from the cache, or from the upstream into it unless the run is dry."""
        at = repository.at
        with contextlib.suppress(ManifestUnknownError):
            found = await self._services.manifests.get(at.name, digest, time.monotonic())
            return RawManifest(found.raw, found.row.media_type, is_new=False)
        upstream = repository.upstream
        if self._is_dry:
            fetched = await retry(lambda: upstream.get_manifest(at.remote, digest))
            return RawManifest(fetched.body, fetched.media_type, is_new=True)
        store = self._services.mirrored_manifests.store
        await retry(lambda: store(at, digest, upstream, ()))
        found = await self._services.manifests.get(at.name, digest, time.monotonic())
        return RawManifest(found.raw, found.row.media_type, is_new=True)

    async def _find_missing(
        self, at: Mirrored, tag: Tag, wanted: dict[Digest, int]
    ) -> tuple[Digest | None, list[tuple[Digest, int]]]:
        """Return what the tag points to here, and the blobs that are not here, with their sizes."""

        def work(tx: Transaction) -> tuple[Digest | None, set[Digest]]:
            repository = repositories.find(tx, at.name)
            if repository is None:
                return None, set()
            linked = blobs.list_linked(tx, repository, sorted(wanted))
            live = {digest for digest, state in linked.items() if state is BlobState.LIVE}
            return tag_rows.find(tx, repository, tag), live

        before, live = await self._services.database.read(work)
        return before, [each for each in wanted.items() if each[0] not in live]

    # The copies

    async def _confirm(
        self, repository: _Repository, tag: Tag, digest: Digest, latest: Digest
    ) -> None:
        """Record that the tag is as it should be."""
        at = repository.at
        await self._services.mirrored_manifests.confirm(at, tag, digest, latest)
        if repository.synced.get(str(tag), digest) != digest:  # a pull has moved it meanwhile
            await self._claim(at, tag, digest)

    async def _copy(self, planned: _PlannedTag) -> None:
        async def copy() -> None:
            await self._fetch_all(planned.at, planned.blobs)
            await self._set(planned)
            self._log.counts.done += 1

        await self._failures.attempt_change(planned.at.name, planned.tag, copy)

    async def _fetch_all(self, at: Mirrored, wanted: Iterable[tuple[Digest, int]]) -> None:
        async def fetch(blob: tuple[Digest, int]) -> None:
            # Several tags may need the blob, which is to be counted once.
            lock = self._locks.setdefault((at.name, blob[0]), asyncio.Lock())
            async with lock, self._busy:
                await self._fetch(at, *blob)

        await for_each(wanted, fetch, BLOBS_AT_ONCE)

    async def _fetch(self, at: Mirrored, digest: Digest, size: int) -> None:
        counts, before = self._log.counts, 0

        def advance(position: int) -> None:
            nonlocal before
            counts.copied_bytes += position - before
            before = position

        await retry(lambda: self._services.mirrored_blobs.fetch(at, digest, advance))
        counts.blobs += before > 0 or size == 0

    async def _set(self, planned: _PlannedTag) -> None:
        """Point the tag at its image, which is complete by now."""
        services, at, tag, digest = self._services, planned.at, planned.tag, planned.digest
        async with services.upstreams.use(self._mirror) as upstream:
            await retry(lambda: services.mirrored_manifests.store(at, digest, upstream, (tag,)))
        await services.mirrored_manifests.confirm(at, tag, digest, planned.latest)
        await self._claim(at, tag, digest)

    async def _claim(self, at: Mirrored, tag: Tag, digest: Digest) -> None:
        """Record that a sync has set the tag."""
        await self._services.database.write(
            lambda tx: synced_tags.put(tx, at.name, tag, digest), actor=self._principal.name
        )

    # Deletions

    async def _plan_removals(self, at: Mirrored, listed: set[str]) -> None:
        allowed = self._options.removals
        for tag, digest in await removals.list_gone(self._services.database, at.name, listed):
            if allowed is not None and f"{at.name}:{tag}" not in allowed:
                self._log.note(f"{at.name}:{tag} was not in the confirmed plan, so it stays")
                continue
            self._log.plan(at.name, tag, SyncAction.REMOVE, digest)
            self._removals.append((at, tag, digest))

    async def _remove(self, at: Mirrored, tag: Tag, digest: Digest) -> None:
        deleted = await self._failures.attempt_change(
            at.name,
            tag,
            lambda: removals.delete(self._services.database, at.name, tag, digest, self._principal),
        )
        self._log.counts.removed += bool(deleted)


async def _list_tags(upstream: "AnyUpstream", remote: RepositoryName) -> list[Tag]:
    return [tag async for tag in upstream.iter_tags(remote)]


async def _list_referrers(
    upstream: "AnyUpstream", remote: RepositoryName, subject: Digest
) -> list[Descriptor]:
    return await retry(lambda: upstream.list_referrers(remote, subject))
