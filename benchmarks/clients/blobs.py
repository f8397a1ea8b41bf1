"""Blobs of any size whose digest and frames cost little to compute."""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1 << 20
KIB = 1 << 10
CHUNK = 32 * KIB
"""Size of an HTTP chunk, as Docker sends them."""
BLOCK = 8 * MIB
_RANDOM = random.Random(0).randbytes(BLOCK)  # noqa: S311 - content that does not compress
_CHUNKS = memoryview(
    b"".join(b"%x\r\n%b\r\n" % (CHUNK, _RANDOM[at : at + CHUNK]) for at in range(0, BLOCK, CHUNK))
)
_hashed: dict[int, "hashlib._Hash"] = {}
_numbers = itertools.count(random.SystemRandom().randrange(1 << 60))


@dataclass(frozen=True, slots=True)
class Blob:
    """Unique content: a random block repeated, and a unique end that completes the size."""

    size: int
    end: bytes
    digest: str

    def list_chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the content in the chunked coding."""
        for _ in range((self.size - len(self.end)) // BLOCK):
            yield _CHUNKS
        yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.end), self.end)


def make_blob(size: int) -> Blob:
    """Return a unique blob. The digest of the repeated part is computed once for each size."""
    blocks = max(0, size - 16) // BLOCK
    if blocks not in _hashed:
        _hashed[blocks] = hashlib.sha256()
        for _ in range(blocks):
            _hashed[blocks].update(_RANDOM)
    number = b"%016x" % next(_numbers)
    end = (number + _RANDOM)[: size - blocks * BLOCK]
    whole = _hashed[blocks].copy()
    whole.update(end)
    return Blob(size, end, f"sha256:{whole.hexdigest()}")
