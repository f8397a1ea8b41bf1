"""The only mapping from digests to keys.

Layout below the root of a local store (a bucket's prefix has the same `blobs/`):

    VERSION                                       layout version; its absence means "not mounted"
    staging/<session id>                          bytes of an open upload session
    blobs/<algorithm>/<first two hex>/<hex>.<generation>

A generation is random and a key is never used twice, so that removing an old object can never hit
a new one with the same digest (design D1).
"""

import secrets

from storage.digest import Digest


def new_generation() -> str:
    """64 random bits, in hex."""
    return secrets.token_hex(8)


def blob_key(digest: Digest, generation: str) -> str:
    return f"{shard(digest.algorithm, digest.hex[:2])}/{digest.hex}.{generation}"


def shard(algorithm: str, first: str) -> str:
    return f"blobs/{algorithm}/{first}"
