"""The only mapping from digests to keys.

Layout below the root of a local store:

    VERSION                                       layout version; its absence means "not mounted"
    staging/<session id>                          bytes of an open upload session
    blobs/<algorithm>/<first two hex>/<hex>.<generation>

Layout below the prefix of a bucket, where nothing can be renamed and an open multipart upload
keeps the key it began with:

    VERSION                                       as above
    SELFTEST                                      written and read back at each start
    staging/<session id>/<claim>                  the last bytes of a session, less than a part
    blobs/<algorithm>/<first two hex>/<hex>.<generation>    put whole
    blobs/parts/<first two hex>/<uuid>            put in parts, begun before the digest was known

A backup (`registry.services.backup`) is a local store too, but for generations: each blob is there
once, as it was pushed, so that what is there need not be copied again.

    blobs/<algorithm>/<first two hex>/<hex>

A generation is random and a key is never used twice, so that removing an old object can never hit
a new one with the same digest (design D1).
"""

import re
import secrets
import uuid

from storage.digest import ALGORITHMS, Digest

PARTS = "blobs/parts/"
"""Where the keys are under which a multipart upload may be open."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(
    "|".join(
        [
            *(
                f"blobs/{a}/[0-9a-f]{{2}}/[0-9a-f]{{{n}}}[.][0-9a-f]+"
                for a, n in ALGORITHMS.items()
            ),
            f"{PARTS}[0-9a-f]{{2}}/{_UUID}",
            f"staging/{_UUID}/[0-9]+",
        ]
    )
)


def new_generation() -> str:
    """64 random bits, in hex."""
    return secrets.token_hex(8)


def blob_key(digest: Digest, generation: str) -> str:
    return f"{shard(digest.algorithm, digest.hex[:2])}/{digest.hex}.{generation}"


def archive_key(digest: Digest) -> str:
    """The key of a blob in a backup."""
    return f"{shard(digest.algorithm, digest.hex[:2])}/{digest.hex}"


def find_digest(key: str) -> Digest | None:
    """The digest that a key of `blob_key` is of; None for all others."""
    match key.split("/"):
        case ["blobs", algorithm, _, name] if algorithm in ALGORITHMS:
            return Digest.parse(f"{algorithm}:{name.partition('.')[0]}")
    return None


def find_session(key: str) -> str | None:
    """The session that a key of `staged_key` is of; None for all others."""
    folder, _, rest = key.partition("/")
    return rest.partition("/")[0] if folder == "staging" else None


def is_ours(key: str) -> bool:
    """Whether a key found in a store is one that is made here."""
    return _OURS.fullmatch(key) is not None


def shard(algorithm: str, first: str) -> str:
    return f"blobs/{algorithm}/{first}"


def new_parts_key() -> str:
    name = str(uuid.uuid4())
    return f"{PARTS}{name[:2]}/{name}"


def staged_key(session: str, claim: int) -> str:
    return f"staging/{session}/{claim}"
