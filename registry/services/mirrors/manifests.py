"""Manifests of mirrors: from the cache while it is current, otherwise from the upstream."""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.errors import (
    ManifestInvalidError,
    ManifestUnknownError,
    ProtectedError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.metadata.content import blobs, repositories
from registry.metadata.content.blobs import BlobState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_tag_history, mirror_tags
from registry.metadata.mirrors.mirror_tags import MirrorTag
from registry.oci.references import Reference, Tag
from registry.services.content.manifest_parsing import parse_on_loop_or_thread
from registry.services.content.manifests import Manifests, StoredManifest
from registry.services.maintenance.leases import Leases
from registry.services.mirrors.cooldown import Cooldowns, make_held_error
from registry.services.mirrors.flights import Flights
from registry.services.mirrors.mirror import Mirrored
from registry.services.mirrors.options import read_seconds
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest

if TYPE_CHECKING:
    from registry.client.failover import AnyUpstream

DECIDE_S = 9.0
"""The time within which a request is answered, even if the upstream does not respond.

containerd waits 30 s for response headers, and then asks the next registry.
"""

SEEN_S = 5.0
"""The time for which an upstream that has responded counts as reachable."""

_MOST_UNKNOWN = 10_000
_MICROSECOND = 1e-6


@dataclass(frozen=True, slots=True)
class ServedManifest:
    """A manifest of a mirror.

    It is current until `deadline` (of `time.monotonic`). If the upstream failed, `problem` says
    why, and the manifest may be outdated. `is_fetched` means that it was not cached before.
    """

    found: StoredManifest
    deadline: float = math.inf
    problem: str = ""
    is_fetched: bool = False

    @property
    def raw(self) -> bytes:
        return self.found.raw


class MirroredManifests:
    """Manifests of the repositories of mirrors."""

    def __init__(
        self,
        database: Database,
        manifests: Manifests,
        upstreams: Upstreams,
        leases: Leases,
        cooldowns: Cooldowns,
    ) -> None:
        self._db = database
        self._cooldowns = cooldowns
        self._manifests = manifests
        self._upstreams = upstreams
        self._flights: Flights[ServedManifest] = Flights(leases)
        self._unknown: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._seen: dict[str, float] = {}

    async def close(self) -> None:
        """Cancel the requests to upstreams."""
        await self._flights.close()

    async def get(self, at: Mirrored, reference: Reference, since: float) -> ServedManifest:
        """Return a manifest, from the cache or from the upstream.

        `since` is as in `Manifests.get`. Raises ManifestUnknownError if the upstream does not have
        it or does not deliver it, and UpstreamError if it is not cached and the upstream fails.
        """
        if isinstance(reference, Tag):
            served = await self._find_current(at, reference, since)
        else:
            found = await self._find(at, reference, since)
            served = ServedManifest(found) if found is not None else None
        if served is None:
            self._require_not_unknown(at, reference)
            before = await self._find(at, reference, since)
            served = await self._flights.run(
                f"{at.name}@{reference}",
                lambda: self._find_current(at, reference, time.monotonic()),
                lambda: self._fetch(at, reference),
            )
            served = replace(served, is_fetched=not before or before.row != served.found.row)
        if served.problem:
            return served
        until = await self._require_usable(at, served.found)
        return replace(served, deadline=min(served.deadline, until))

    async def get_cached(self, at: Mirrored, reference: Reference, since: float) -> ServedManifest:
        """Return a manifest of which all blobs are cached. The upstream is not asked.

        Raises ManifestUnknownError for any other one.
        """
        found = await self._find(at, reference, since)
        if found is not None and isinstance(reference, Tag):
            found = await self._apply_cooldown(at, reference, found)
        if found is None or not await self._is_complete(at, found):
            raise ManifestUnknownError(
                f"{reference} is not cached in {at.name}", {"reference": str(reference)}
            )
        return ServedManifest(found)

    async def refresh(self, at: Mirrored, tag: Tag) -> tuple[Digest | None, Digest]:
        """Look up a tag at the upstream now. Return the digests that it had and has.

        Raises as `get`, and UpstreamUnavailableError if the upstream fails.
        """

        async def find() -> None:
            return None

        before = await self._find(at, tag, time.monotonic())
        self._unknown.pop(f"{at.name}@{tag}", None)
        served = await self._flights.run(f"{at.name}@{tag}", find, lambda: self._fetch(at, tag))
        if served.problem:
            raise UpstreamUnavailableError(f"{tag} was not looked up: {served.problem}")
        return before.row.digest if before is not None else None, served.found.row.digest

    async def _find(
        self, at: Mirrored, reference: Reference, since: float
    ) -> StoredManifest | None:
        try:
            return await self._manifests.get(at.name, reference, since)
        except ManifestUnknownError:
            return None

    async def _find_current(
        self, at: Mirrored, reference: Reference, since: float
    ) -> ServedManifest | None:
        """Return a cached manifest that needs no look at the upstream."""
        found = await self._find(at, reference, since)
        if found is None or isinstance(reference, Digest):
            return ServedManifest(found) if found is not None else None
        known = await self._find_tag(at, reference)
        if known is None or known.digest != found.row.digest:
            return None
        left = read_seconds(at.mirror.options.tag_ttl) - known.age * _MICROSECOND
        if left > 0 and self._cooldowns.applies_to(at, reference):
            choice = await self._cooldowns.find(at, reference)
            left = min(left, choice.lasts_s) if choice.digest == known.digest else 0
        return ServedManifest(found, time.monotonic() + left) if left > 0 else None

    async def _find_tag(self, at: Mirrored, tag: Tag) -> MirrorTag | None:
        return await self._db.read(lambda tx: mirror_tags.find(tx, at.name, tag), single=True)

    async def _fetch(self, at: Mirrored, reference: Reference) -> ServedManifest:
        """Return the manifest as the upstream has it now, or the cached one if that fails."""
        try:
            async with asyncio.timeout(DECIDE_S), self._upstreams.use(at.mirror) as upstream:
                lasts_s = await self._update(at, reference, upstream)
                self._seen[at.mirror.name] = time.monotonic()
        except UpstreamUnknownError as error:
            self._remember_unknown(at, reference, "the upstream did not have it a moment ago")
            raise _unknown(at, reference, error.message) from error
        except (UpstreamError, TimeoutError) as error:
            problem = error if isinstance(error, UpstreamError) else _not_in_time(at)
            return await self._find_stale(at, reference, problem)
        found = await self._manifests.get(at.name, reference, time.monotonic())
        ttl = read_seconds(at.mirror.options.tag_ttl) if isinstance(reference, Tag) else math.inf
        return ServedManifest(found, time.monotonic() + min(ttl, lasts_s))

    async def _update(self, at: Mirrored, reference: Reference, upstream: "AnyUpstream") -> float:
        """Bring the cache up to date. Return the seconds after which the answer changes."""
        if isinstance(reference, Digest):
            await self.store(at, reference, upstream, ())
            return math.inf
        head = await upstream.head_manifest(at.remote, reference)
        if self._cooldowns.applies_to(at, reference):
            latest = head.digest or await self.store(at, reference, upstream, ())
            return await self._update_held(at, reference, latest, upstream)
        digest = await self._point(at, reference, head.digest or reference, upstream)
        await self.confirm(at, reference, digest, head.digest)
        return math.inf

    async def confirm(
        self, at: Mirrored, tag: Tag, digest: Digest, latest: Digest | None = None
    ) -> None:
        """Record that a tag answers with `digest`, and that the upstream has it at `latest` now.

        They are the same if `latest` is None.
        """

        def work(tx: Transaction) -> None:
            mirror_tags.put(tx, at.name, tag, digest)
            mirror_tag_history.observe(tx, at.name, tag, latest or digest)

        await self._db.write(work, actor=at.mirror.principal.name, durable=False)

    async def _update_held(
        self, at: Mirrored, tag: Tag, latest: Digest, upstream: "AnyUpstream"
    ) -> float:
        """Point a tag with a cooldown to the digest with which it answers.

        Raises ManifestUnknownError if all of its digests are held back.
        """
        actor = at.mirror.principal.name
        choice = await self._cooldowns.observe(at, tag, latest, actor)
        while choice.digest is not None:
            try:
                digest = await self._point(at, tag, choice.digest, upstream)
            except UpstreamUnknownError:
                if choice.digest == latest:
                    raise
                choice = await self._cooldowns.forget(at, tag, choice.digest, actor)
                continue
            await self.confirm(at, tag, digest, latest)
            return choice.lasts_s
        error = make_held_error(at, tag, choice)
        self._remember_unknown(at, tag, error.message, choice.lasts_s)
        raise error

    async def _point(
        self, at: Mirrored, tag: Tag, wanted: Reference, upstream: "AnyUpstream"
    ) -> Digest:
        """Point a tag to a manifest, unless it is immutable here. Return the digest it has."""
        current = await self._find(at, tag, time.monotonic())
        if current is not None and current.row.digest == wanted:
            return current.row.digest
        try:
            return await self.store(at, wanted, upstream, (tag,))
        except ProtectedError:
            if current is None:
                raise
            return current.row.digest

    async def store(
        self, at: Mirrored, reference: Reference, upstream: "AnyUpstream", tags: tuple[Tag, ...]
    ) -> Digest:
        """Store a manifest, from the cache or the upstream, and set tags.

        Raises UpstreamError, and the errors of `Manifests.put`.
        """
        cached = None
        if isinstance(reference, Digest):
            cached = await self._find(at, reference, time.monotonic())
        if cached is not None:
            raw, media_type = cached.raw, cached.row.media_type
        else:
            fetched = await upstream.get_manifest(at.remote, reference)
            raw, media_type = fetched.body, fetched.media_type
        try:
            pushed = await self._manifests.put(
                at.name,
                raw,
                media_type,
                at.mirror.principal,
                digest=reference if isinstance(reference, Digest) else None,
                set_tags=tags,
                sparse=True,
            )
        except ManifestInvalidError as error:
            raise UpstreamProtocolError(
                f"{at.mirror.url} has a manifest that is invalid: {error.message}"
            ) from error
        return pushed.digest

    async def _find_stale(
        self, at: Mirrored, reference: Reference, problem: UpstreamError
    ) -> ServedManifest:
        """Return the cached manifest in spite of the problem, or raise it."""
        found = await self._find(at, reference, time.monotonic())
        if found is not None and isinstance(reference, Tag):
            known = await self._find_tag(at, reference)
            options = at.mirror.options
            limit = read_seconds(options.tag_ttl) + read_seconds(options.stale_for)
            if known is None or known.age * _MICROSECOND > limit:
                found = None
            else:
                found = await self._apply_cooldown(at, reference, found)
        if found is not None:
            if not await self._is_complete(at, found):
                raise _incomplete(at, reference, problem)
            return ServedManifest(found, time.monotonic(), problem.message)
        if isinstance(problem, UpstreamDeniedError):
            raise _unknown(at, reference, problem.message) from problem
        raise problem

    async def _apply_cooldown(
        self, at: Mirrored, tag: Tag, found: StoredManifest
    ) -> StoredManifest | None:
        """Return the cached manifest with which a tag answers now, or None.

        Raises ManifestUnknownError if all of its digests are held back.
        """
        if not self._cooldowns.applies_to(at, tag):
            return found
        choice = await self._cooldowns.find(at, tag)
        if choice.digest is None:
            raise make_held_error(at, tag, choice)
        return await self._find(at, choice.digest, time.monotonic())

    async def _require_usable(self, at: Mirrored, found: StoredManifest) -> float:
        """Return until when the manifest may be served, a value of `time.monotonic`.

        Raises ManifestUnknownError if blobs are missing and the upstream cannot be reached: a
        client that gets the manifest would fail at the blob, and not ask its next registry.
        """
        if await self._is_complete(at, found):
            return math.inf
        seen = self._seen.get(at.mirror.name)
        if seen is not None and time.monotonic() < seen + SEEN_S:
            return seen + SEEN_S
        digest = found.row.digest
        try:
            async with asyncio.timeout(DECIDE_S), self._upstreams.use(at.mirror) as upstream:
                await upstream.head_manifest(at.remote, digest)
        except (UpstreamError, TimeoutError) as error:
            problem = error if isinstance(error, UpstreamError) else _not_in_time(at)
            raise _incomplete(at, digest, problem) from error
        self._seen[at.mirror.name] = time.monotonic()
        return time.monotonic() + SEEN_S

    async def _is_complete(self, at: Mirrored, found: StoredManifest) -> bool:
        """Return whether all blobs of the manifest are cached."""
        manifest = await parse_on_loop_or_thread(found.raw, found.row.media_type)
        wanted = {each.digest for each in manifest.required_blobs}

        def work(tx: Transaction) -> bool:
            repository = repositories.find(tx, at.name)
            if repository is None:
                return False
            linked = blobs.list_linked(tx, repository, sorted(wanted))
            return all(linked.get(digest) is BlobState.LIVE for digest in wanted)

        return not wanted or await self._db.read(work)

    def _require_not_unknown(self, at: Mirrored, reference: Reference) -> None:
        until, reason = self._unknown.get(f"{at.name}@{reference}", (0.0, ""))
        if time.monotonic() < until:
            raise _unknown(at, reference, reason)

    def _remember_unknown(
        self, at: Mirrored, reference: Reference, reason: str, most_s: float = math.inf
    ) -> None:
        key = f"{at.name}@{reference}"
        ttl = min(read_seconds(at.mirror.options.negative_ttl), most_s)
        self._unknown[key] = time.monotonic() + ttl, reason
        self._unknown.move_to_end(key)
        while len(self._unknown) > _MOST_UNKNOWN:
            self._unknown.popitem(last=False)


def _unknown(at: Mirrored, reference: Reference, reason: str) -> ManifestUnknownError:
    return ManifestUnknownError(
        f"{reference} is not in {at.remote} of {at.mirror.url}: {reason}",
        {"reference": str(reference)},
    )


def _incomplete(at: Mirrored, reference: Reference, problem: UpstreamError) -> ManifestUnknownError:
    return ManifestUnknownError(
        f"{reference} in {at.name} is cached without all of its blobs, and the upstream fails: "
        f"{problem.message}",
        {"reference": str(reference)},
    )


def _not_in_time(at: Mirrored) -> UpstreamUnavailableError:
    return UpstreamUnavailableError(f"{at.mirror.url} did not respond within {DECIDE_S:g} s")
