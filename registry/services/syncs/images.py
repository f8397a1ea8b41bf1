"""The content of images: the manifests and blobs that a tag needs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from registry.errors import UpstreamProtocolError
from registry.oci.manifests import Manifest, parse_manifest
from registry.oci.media_types import MANIFEST_TYPES
from registry.oci.platforms import Platform, list_excluded
from registry.services.content.manifest_parsing import ON_THREAD
from storage.digest import Digest

MOST_MANIFESTS = 10_000
"""Maximum number of manifests of one image, which an upstream could make up."""


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest. `is_new` means that the target does not have it."""

    body: bytes
    media_type: str
    is_new: bool


@dataclass(slots=True)
class ImageContent:
    """The content of an image: its manifests, children first, and the sizes of its blobs."""

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, int] = field(default_factory=dict)
    has_new_manifests: bool = False


async def collect(
    read: Callable[[Digest], Awaitable[RawManifest]],
    root: Digest,
    platforms: tuple[Platform, ...],
) -> ImageContent:
    """Return the content of the image `root`, without children for other platforms.

    Raises the errors of `read`, and UpstreamProtocolError for an image of too many manifests.
    """
    content = ImageContent()
    waiting, children = [root], dict[Digest, list[Digest]]()
    while waiting:
        current = waiting[-1]
        if current not in children:
            if len(children) == MOST_MANIFESTS:
                raise UpstreamProtocolError(f"{root} has more than {MOST_MANIFESTS} manifests")
            raw = await read(current)
            content.has_new_manifests |= raw.is_new
            children[current] = await _read_children(raw, platforms, content.blobs)
            waiting += [each for each in children[current] if each not in children]
            continue
        waiting.pop()
        content.manifests.append(current)
    content.manifests = list(dict.fromkeys(content.manifests))
    return content


async def _read_children(
    raw: RawManifest, platforms: tuple[Platform, ...], blobs: dict[Digest, int]
) -> list[Digest]:
    """Return the children of a manifest, and add its blobs to `blobs`."""
    if len(raw.body) < ON_THREAD:
        manifest, excluded = _parse(raw, platforms)
    else:
        manifest, excluded = await asyncio.to_thread(_parse, raw, platforms)
    named = list(manifest.required_blobs)
    children = []
    for each in manifest.entries:
        if each.digest in excluded:
            continue
        if each.media_type in MANIFEST_TYPES:
            children.append(each.digest)
        else:  # BuildKit caches list blobs in an index
            named.append(each)
    blobs.update((each.digest, each.size) for each in named)
    return children


def _parse(raw: RawManifest, platforms: tuple[Platform, ...]) -> tuple[Manifest, set[Digest]]:
    manifest = parse_manifest(raw.body, raw.media_type)
    return manifest, list_excluded(raw.body, platforms) if manifest.entries else set()
