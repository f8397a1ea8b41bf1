"""Eviction from mirrors: by size and by age as a job, and by hand."""

import logging
import time

from msgspec import Struct, field

from registry.auth.audit_log import Actor, Event, record
from registry.auth.policy.principals import OPERATOR
from registry.errors import (
    ConflictError,
    ManifestInUseError,
    ManifestUnknownError,
    UpstreamError,
)
from registry.metadata.content import manifests
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_images, mirror_usage, mirrors
from registry.metadata.mirrors.mirror_images import ImageUse
from registry.metadata.mirrors.mirror_usage import MirrorUsage
from registry.metadata.retention.usage_of_tags import read_now
from registry.oci.names import RepositoryName
from registry.oci.references import Reference
from registry.services.content.pulls import Pulls
from registry.services.content.repositories import find_or_raise
from registry.services.gc.clock_guard import ClockGuard
from registry.services.mirrors import evictor
from registry.services.mirrors.evictor import EvictedImage
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.upstreams import Upstreams

logger = logging.getLogger(__name__)

MEASURE_EVERY_S = 60.0
"""Seconds between two measurements of a mirror."""

RECENT_S = 600.0
"""Seconds since the last use in which the job does not evict an image, so that pulls end."""

LOW_WATER = 0.9
"""Share of `max_size` down to which the job evicts."""

SLICE_S = 5.0
"""Duration of a slice of the job, in seconds."""

AT_ONCE = 200
"""Number of images that are listed at once, and the most that one call evicts by hand."""

_SECOND = 1_000_000


class EvictionPage(Struct):
    """The images that one call has looked at. `next` continues after them; None at the end."""

    images: list[EvictedImage] = field(default_factory=list)
    next: tuple[int, int] | None = None


class _Slice(Struct):
    """The state of a slice of the job. `size` is that of the mirror."""

    size: int
    evicted: int = 0
    is_done: bool = False


class Eviction:
    """Eviction of images from mirrors."""

    def __init__(
        self,
        database: Database,
        upstreams: Upstreams,
        pulls: Pulls,
        *,
        grace: float,
        read_only: bool = False,
    ) -> None:
        """Create the service.

        After a jump of the clock, nothing is evicted by age for `grace` seconds. With `read_only`,
        nothing is evicted.
        """
        self._db = database
        self._upstreams = upstreams
        self._pulls = pulls
        self._clock_guard = ClockGuard(database, grace)
        self._read_only = read_only
        self._last: dict[str, tuple[int, int]] = {}

    async def get_usage(self, name: str) -> MirrorUsage | None:
        """Return the bytes of a mirror as last measured by the job."""
        return await self._db.read(lambda tx: mirror_usage.find(tx, name))

    async def is_due(self) -> bool:
        """Return whether a mirror is to be measured, or an eviction is to be continued."""
        return not self._read_only and bool(await self._db.read(_list_due))

    async def run(self) -> int:
        """Do a bounded amount of work. Return 0 if nothing is left to do for now."""
        if self._read_only:
            return 0
        done = 0
        for mirror in await self._db.read(_list_due):
            done += await self._run_slice(mirror)
        return done

    async def _run_slice(self, mirror: Mirror) -> int:
        """Measure a mirror, and evict from it for a while. Return 0 if no work is left."""
        name, pattern = mirror.name, mirror.pattern
        before = await self._db.read(lambda tx: mirror_usage.find(tx, name))
        work = _Slice(
            await self._db.read(
                lambda tx: mirror_images.measure(tx, pattern), timeout_s=LONG_TIMEOUT_S
            )
        )
        most = mirror.options.max_bytes
        was_evicting = before is not None and before.is_evicting
        least = most * LOW_WATER if most and (was_evicting or work.size > most) else None
        if least is None and mirror.options.max_age_s is None:
            work.is_done = True
        else:
            await self._evict_slice(mirror, work, least)
        await self._db.write(
            lambda tx: mirror_usage.put(tx, name, work.size, is_evicting=not work.is_done),
            actor=OPERATOR.name,
            may_use_reserve=True,
        )
        if work.evicted:
            logger.info("mirror %s: %d images evicted", name, work.evicted)
        return work.evicted or int(not work.is_done)

    async def _evict_slice(self, mirror: Mirror, work: _Slice, least: float | None) -> None:
        """Evict the least recently used images down to `least` bytes, and those that are too old.

        Nothing is evicted while the upstream fails, because it could not be fetched again.
        """
        await self._pulls.flush()
        now = await self._db.read(read_now)
        recent, oldest = now - int(RECENT_S * _SECOND), await self._find_oldest(mirror, now)
        deadline = time.monotonic() + SLICE_S
        is_reachable = False
        while uses := await self._list_uses(mirror, self._last.get(mirror.name)):
            for use in uses:
                is_too_much = least is not None and work.size > least
                if use.used_at > recent or not (is_too_much or use.used_at < oldest):
                    break
                is_reachable = is_reachable or await self._is_reachable(mirror)
                if not is_reachable:
                    break
                image = await self._evict(mirror, use)
                if image is not None and not image.obstacle:
                    work.evicted += 1
                    work.size -= image.bytes
                self._last[mirror.name] = use.used_at, use.id
                if time.monotonic() > deadline:
                    return
            else:
                continue
            break
        self._last.pop(mirror.name, None)
        work.is_done = True

    async def _find_oldest(self, mirror: Mirror, now: int) -> int:
        """Return the time before which an image must have been used last to be too old.

        It is 0 if no image is too old, or after a clock jump.
        """
        age = mirror.options.max_age_s
        if age is None or await self._clock_guard.cutoff() is None:
            return 0
        return now - int(age * _SECOND)

    async def _list_uses(self, mirror: Mirror, last: tuple[int, int] | None) -> list[ImageUse]:
        return await self._db.read(
            lambda tx: mirror_images.list_least_used(tx, mirror.pattern, AT_ONCE, last),
            timeout_s=LONG_TIMEOUT_S,
        )

    async def _is_reachable(self, mirror: Mirror) -> bool:
        try:
            await self._upstreams.ping(mirror)
        except UpstreamError as error:
            logger.warning("mirror %s: nothing is evicted: %s", mirror.name, error)
            return False
        return True

    async def _evict(self, mirror: Mirror, use: ImageUse) -> EvictedImage | None:
        return await self._db.write(
            lambda tx: evictor.evict(tx, mirror, use),
            actor=mirror.principal.name,
            may_use_reserve=True,
        )

    async def evict_one(
        self,
        mirror: Mirror,
        name: RepositoryName,
        reference: Reference,
        actor: Actor,
        *,
        dry_run: bool,
    ) -> EvictedImage:
        """Evict an image now, with all its tags, or say what keeps it.

        Raises RepositoryUnknownError, ManifestUnknownError, ManifestInUseError if the manifest
        belongs to another image, and ConflictError if the registry is read-only.
        """
        self._require_writable()

        def find(tx: Transaction) -> ImageUse:
            repository = find_or_raise(tx, name)
            row = manifests.find(tx, name, reference)
            if row is None:
                raise ManifestUnknownError(
                    f"{reference} is not cached in {name}", {"reference": str(reference)}
                )
            use = mirror_images.find_use(tx, repository, row.digest)
            if use is None:
                raise ManifestInUseError(
                    f"{reference} belongs to another image of {name}: an index that names it, or "
                    "its subject; evict that one"
                )
            return use

        use = await self._db.read(find)
        image = await self._evict_by_hand(mirror, use, actor, dry_run=dry_run)
        if image is None:
            raise ConflictError(f"{name}:{reference} changed during the request; try again")
        return image

    async def evict_all(
        self,
        mirror: Mirror,
        name: RepositoryName | None,
        actor: Actor,
        *,
        last: tuple[int, int] | None = None,
        dry_run: bool,
    ) -> EvictionPage:
        """Evict the images of a mirror or of one of its repositories now, the least used first.

        Handles at most `AT_ONCE` images after `last`. Raises ConflictError if the registry is
        read-only.
        """
        self._require_writable()
        pattern = mirror.pattern if name is None else str(name)
        uses = await self._db.read(
            lambda tx: mirror_images.list_least_used(tx, pattern, AT_ONCE, last),
            timeout_s=LONG_TIMEOUT_S,
        )
        page = EvictionPage()
        for use in uses:
            image = await self._evict_by_hand(mirror, use, actor, dry_run=dry_run)
            if image is not None:
                page.images.append(image)
        if len(uses) == AT_ONCE:
            page.next = uses[-1].used_at, uses[-1].id
        return page

    async def _evict_by_hand(
        self, mirror: Mirror, use: ImageUse, actor: Actor, *, dry_run: bool
    ) -> EvictedImage | None:
        if dry_run:
            return await self._db.read(lambda tx: evictor.preview(tx, mirror, use))

        def work(tx: Transaction) -> EvictedImage | None:
            image = evictor.evict(tx, mirror, use)
            if image is not None and not image.obstacle:
                target = f"{use.repository}@{use.digest}"
                record(tx, actor, Event.MIRROR_EVICT, target, bytes=image.bytes)
            return image

        return await self._db.write(work, actor=actor.name, may_use_reserve=True)

    def _require_writable(self) -> None:
        if self._read_only:
            raise ConflictError("the registry is read-only, so nothing can be evicted")


def _list_due(tx: Transaction) -> list[Mirror]:
    """Return the mirrors that are to be measured, or whose eviction is not done."""
    rows = mirrors.list_all(tx)
    if not rows:
        return []
    measured = mirror_usage.list_measured(tx, read_now(tx) - int(MEASURE_EVERY_S * _SECOND))
    return [Mirror.of_row(row) for row in rows if measured.get(row.name, True)]
