"""Keys of objects: the only mapping from digests to keys.

Layout below the root of a local store:

    VERSION                                       layout version; its absence means "not mounted"
    staging/<session id>                          bytes of an open upload session
    blobs/<algorithm>/<first two hex>/<hex>.<generation>

Layout below the prefix of a bucket, which cannot rename, so that a multipart upload keeps the key
that it began with:

    VERSION                                       as above
    SELFTEST                                      written and read back at each start
    staging/<session id>/<claim>                  the last bytes of a session, less than a part
    blobs/<algorithm>/<first two hex>/<hex>.<generation>    put whole
    blobs/parts/<first two hex>/<uuid>            put in parts, begun before the digest was known

A backup (`registry.services.backup`) is also a local store, but without generations. It has each
blob once, as it was pushed, so that a later backup does not copy the blob again.

    blobs/<algorithm>/<first two hex>/<hex>

A generation is random and no key is used twice, so that deleting an old object never hits a new
object with the same digest.
"""

import re
import secrets
import uuid

from storage.digest import ALGORITHMS, Digest

MULTIPART_PREFIX = "blobs/parts/"
"""Prefix of the keys that may have an open multipart upload."""

_UUID_PATTERN = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KNOWN_KEY = re.compile(
    "|".join(
        [
            *(
                f"blobs/{a}/[0-9a-f]{{2}}/[0-9a-f]{{{n}}}[.][0-9a-f]+"
                for a, n in ALGORITHMS.items()
            ),
            f"{MULTIPART_PREFIX}[0-9a-f]{{2}}/{_UUID_PATTERN}",
            f"staging/{_UUID_PATTERN}/[0-9]+",
        ]
    )
)


def new_generation() -> str:
    """Return 64 random bits in hex."""
    return secrets.token_hex(8)


def blob_key(digest: Digest, generation: str) -> str:
    return f"{shard(digest.algorithm, digest.hex[:2])}/{digest.hex}.{generation}"


def archive_key(digest: Digest) -> str:
    """Return the key of a blob in a backup."""
    return f"{shard(digest.algorithm, digest.hex[:2])}/{digest.hex}"


def digest_of(key: str) -> Digest | None:
    """Return the digest in a key of `blob_key`, or None for any other key."""
    match key.split("/"):
        case ["blobs", algorithm, _, name] if algorithm in ALGORITHMS:
            return Digest.parse(f"{algorithm}:{name.partition('.')[0]}")
    return None


def session_of(key: str) -> str | None:
    """Return the session ID in a key of `staged_key`, or None for any other key."""
    folder, _, rest = key.partition("/")
    return rest.partition("/")[0] if folder == "staging" else None


def is_known_key(key: str) -> bool:
    """Return whether the key has the form of a key made by this module."""
    return _KNOWN_KEY.fullmatch(key) is not None


def shard(algorithm: str, first: str) -> str:
    return f"blobs/{algorithm}/{first}"


def new_multipart_key() -> str:
    name = str(uuid.uuid4())
    return f"{MULTIPART_PREFIX}{name[:2]}/{name}"


def staged_key(session: str, claim: int) -> str:
    return f"staging/{session}/{claim}"
