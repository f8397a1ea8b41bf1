import re

import pytest

from storage.digest import ALGORITHMS, Digest
from storage.keys import blob_key, new_generation, shard


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_key_is_laid_out_as_drawn(algorithm: str) -> None:
    digest = Digest.of(b"bytes", algorithm)
    key = blob_key(digest, "0123456789abcdef")
    assert key == f"blobs/{algorithm}/{digest.hex[:2]}/{digest.hex}.0123456789abcdef"
    assert key.startswith(f"{shard(algorithm, digest.hex[:2])}/")


def test_generation_is_64_random_bits() -> None:
    some = [new_generation() for _ in range(1000)]
    assert all(re.fullmatch("[0-9a-f]{16}", generation) for generation in some)
    assert len(set(some)) == len(some)


def test_key_is_never_used_twice() -> None:
    digest = Digest.of(b"bytes")
    assert blob_key(digest, new_generation()) != blob_key(digest, new_generation())
