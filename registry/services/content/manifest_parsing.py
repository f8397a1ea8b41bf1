"""Parsing of manifests in coroutines."""

import asyncio

from registry.oci.manifests import Manifest, parse_manifest

ON_THREAD = 64 << 10
"""Size in bytes from which work on a manifest would delay other requests too long."""


async def parse_on_loop_or_thread(raw: bytes, media_type: str) -> Manifest:
    """Return `parse_manifest` of the bytes, from a thread if they are large."""
    if len(raw) < ON_THREAD:
        return parse_manifest(raw, media_type)
    return await asyncio.to_thread(parse_manifest, raw, media_type)
