import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digest import ALGORITHMS, DEFAULT_ALGORITHM, Digest, DigestInvalidError, Hasher

HEX = {name: hashlib.new(name, b"").hexdigest() for name in ALGORITHMS}
SHA256 = HEX["sha256"]


def test_default_algorithm_is_supported() -> None:
    assert DEFAULT_ALGORITHM in ALGORITHMS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parse_gives_the_parts(algorithm: str) -> None:
    digest = Digest.parse(f"{algorithm}:{HEX[algorithm]}")
    assert (digest.algorithm, digest.hex) == (algorithm, HEX[algorithm])
    assert len(digest.hex) == ALGORITHMS[algorithm]


@given(st.binary(), st.sampled_from(list(ALGORITHMS)))
def test_text_and_back(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        SHA256,
        f":{SHA256}",
        f"sha256{SHA256}",
        f"sha256:{SHA256[:-1]}",
        f"sha256:{SHA256}0",
        f"sha256:{SHA256.upper()}",
        f"SHA256:{SHA256}",
        f"sha256:{SHA256[:-1]}g",
        f"sha256:{SHA256[:-1]}\n",
        f"sha256:{SHA256}\n",
        f" sha256:{SHA256}",
        f"sha256::{SHA256[:-1]}",
        f"sha256:0x{SHA256[2:]}",
        f"sha256:{SHA256[:-2]}..",
        f"sha256:{'../' * 21}.",
        f"sha256:{SHA256[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
        f"sha512:{SHA256}",
        f"sha256:{HEX['sha512']}",
        f"md5:{'0' * 32}",
        f"sha384:{'0' * 96}",
        f"sha256+b64:{SHA256}",
        f"sha256%3A{SHA256}",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalidError):
        Digest.parse(text)


@given(st.text() | st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__))
def test_what_is_accepted_has_one_form(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except DigestInvalidError:
        return
    assert re.fullmatch(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", text)
    assert str(digest) == text


def test_digest_is_a_value() -> None:
    one, other = Digest.of(b"one"), Digest.of(b"other")
    assert {one, Digest.of(b"one")} == {one}
    assert sorted([one, other]) == sorted([one, other], key=str)
    with pytest.raises(AttributeError):
        one.hex = other.hex  # type: ignore[misc]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(pieces=st.lists(st.binary()))
def test_hasher_runs_over_pieces(algorithm: str, pieces: list[bytes]) -> None:
    hasher = Hasher(algorithm)
    for piece in pieces:
        hasher.update(memoryview(bytearray(piece)))
    assert hasher.algorithm == algorithm
    assert hasher.digest() == Digest.of(b"".join(pieces), algorithm)


def test_asking_for_the_digest_does_not_end_a_hasher() -> None:
    hasher = Hasher("sha256")
    hasher.update(b"one")
    assert hasher.digest() == hasher.digest() == Digest.of(b"one")
    hasher.update(b"two")
    assert hasher.digest() == Digest.of(b"onetwo")


def test_copy_and_original_go_separate_ways() -> None:
    hasher = Hasher("sha512")
    hasher.update(b"kept")
    copy = hasher.copy()
    hasher.update(b" rejected")
    copy.update(b" accepted")
    assert hasher.digest() == Digest.of(b"kept rejected", "sha512")
    assert copy.digest() == Digest.of(b"kept accepted", "sha512")
