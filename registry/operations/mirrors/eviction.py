"""Eviction of images from mirrors, and the size of mirrors."""

import re
from typing import Annotated

from msgspec import Meta

from registry.clock import rfc3339
from registry.errors import (
    ConflictError,
    InputInvalidError,
    ManifestInUseError,
    ManifestUnknownError,
    NotFoundError,
    RepositoryUnknownError,
)
from registry.oci.names import RepositoryName
from registry.operations.context import OperationContext
from registry.operations.fields import (
    ReferenceText,
    RepositoryText,
    RequestModel,
    ResponseModel,
    Text,
    Timestamp,
    read_reference,
)
from registry.operations.mirrors.mirrors import MirrorName, NamedMirror
from registry.operations.operation import ADMINS, Operation
from registry.services.mirrors.eviction import EvictionPage
from registry.services.mirrors.evictor import EvictedImage
from registry.services.mirrors.mirror import Mirror

_PLACE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class MirrorUsage(ResponseModel, frozen=True):
    """The bytes of the distinct blobs and of the manifests of a mirror when last measured.

    Both are null if the mirror was not measured yet.
    """

    name: str
    bytes: int | None
    measured_at: Timestamp | None


class EvictImages(RequestModel, frozen=True):
    """The images to evict: one, or those of a repository, or of the whole mirror.

    `reference` is a tag or a digest. `last` is the `next` of the previous response. `dry_run` only
    returns what would be evicted.
    """

    name: MirrorName
    repository: RepositoryText | None = None
    reference: ReferenceText | None = None
    last: Text = ""
    dry_run: bool = False


class EvictedImageInfo(ResponseModel, frozen=True):
    """An image that was evicted, or would be. `bytes` is how much smaller the mirror is then."""

    repository: str
    digest: str
    tags: list[str]
    manifests: list[str]
    bytes: int
    used_at: Timestamp


class KeptImage(ResponseModel, frozen=True):
    """An image that was not evicted, with the reason."""

    repository: str
    digest: str
    reason: str


class Evicted(ResponseModel, frozen=True):
    """Evicted images, and images that stay. `next` continues the list; null at its end."""

    evicted: list[EvictedImageInfo]
    kept: list[KeptImage]
    next: Annotated[str | None, Meta(examples=["1764536400000000-17"])]


def _show(image: EvictedImage) -> EvictedImageInfo:
    return EvictedImageInfo(
        repository=str(image.use.repository),
        digest=str(image.use.digest),
        tags=image.tags,
        manifests=[str(digest) for digest in image.manifests],
        bytes=image.bytes,
        used_at=rfc3339(image.use.used_at),
    )


def _read_place(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = _PLACE.fullmatch(text)
    if match is None:
        raise InputInvalidError(f"last: {text!r:.40} is not the `next` of a response")
    return int(match[1]), int(match[2])


async def get_mirror_usage(context: OperationContext, request: NamedMirror) -> MirrorUsage:
    """Return how many bytes a mirror has."""
    mirror = await context.registry.mirrors.get(request.name)
    usage = await context.registry.eviction.get_usage(mirror.name)
    if usage is None:
        return MirrorUsage(mirror.name, None, None)
    return MirrorUsage(mirror.name, usage.bytes, rfc3339(usage.measured_at))


async def evict_images(context: OperationContext, request: EvictImages) -> Evicted:
    """Evict images from a mirror now. A later pull fetches them again."""
    mirror = await context.registry.mirrors.get(request.name)
    page = await _evict(context, mirror, request)
    return Evicted(
        evicted=[_show(each) for each in page.images if not each.obstacle],
        kept=[
            KeptImage(str(each.use.repository), str(each.use.digest), each.obstacle)
            for each in page.images
            if each.obstacle
        ],
        next=None if page.next is None else "{}-{}".format(*page.next),
    )


async def _evict(context: OperationContext, mirror: Mirror, request: EvictImages) -> EvictionPage:
    eviction = context.registry.eviction
    name = None
    if request.repository is not None:
        name = RepositoryName.parse(request.repository)
        if mirror.find_remote(name) is None:
            raise InputInvalidError(f"{name} is not a repository of the mirror {mirror.name}")
    if request.reference is None:
        return await eviction.evict_all(
            mirror,
            name,
            context.actor,
            last=_read_place(request.last),
            dry_run=request.dry_run,
        )
    if name is None:
        raise InputInvalidError("`reference` requires `repository`")
    reference = read_reference(request.reference)
    image = await eviction.evict_one(
        mirror, name, reference, context.actor, dry_run=request.dry_run
    )
    return EvictionPage([image])


OPERATIONS = (
    Operation(
        "GET",
        "/mirrors/{name}/usage",
        get_mirror_usage,
        ADMINS,
        (NotFoundError, ConflictError),
    ),
    Operation(
        "POST",
        "/mirrors/{name}/evict",
        evict_images,
        ADMINS,
        (
            ConflictError,
            ManifestInUseError,
            ManifestUnknownError,
            NotFoundError,
            RepositoryUnknownError,
        ),
    ),
)
