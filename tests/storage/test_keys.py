import re
import uuid

import pytest

from storage.digest import ALGORITHMS, Digest
from storage.keys import (
    blob_key,
    digest_of,
    is_known_key,
    new_generation,
    new_multipart_key,
    session_of,
    shard,
    staged_key,
)


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


def test_the_digest_of_a_key_is_found_again() -> None:
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(b"", algorithm)
        assert digest_of(blob_key(digest, new_generation())) == digest
    assert digest_of(new_multipart_key()) is None
    assert digest_of(staged_key("0" * 8, 1)) is None


def test_the_session_of_a_staged_key_is_found_again() -> None:
    session = str(uuid.uuid4())
    assert session_of(staged_key(session, 7)) == session
    assert session_of(new_multipart_key()) is None


def test_keys_made_here_are_told_from_all_others() -> None:
    made = [blob_key(Digest.of(b"", algorithm), new_generation()) for algorithm in ALGORITHMS]
    made += [new_multipart_key(), staged_key(str(uuid.uuid4()), 12)]
    assert [key for key in made if not is_known_key(key)] == []
    others = [f"{key}{more}" for key in made for more in (".tmp", "/x", "\n")]
    others += ["blobs/sha256/ab/notes.txt", "blobs/md5/ab/abcd.00", "", *(key[1:] for key in made)]
    assert [key for key in others if is_known_key(key)] == []
