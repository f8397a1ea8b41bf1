"""Tags, and how they differ from digests."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import TagInvalidError
from registry.oci.references import Tag, parse_reference
from storage.digest import Digest, DigestInvalidError

WORD = string.ascii_letters + string.digits + "_"


@given(st.sampled_from(WORD), st.text(alphabet=WORD + ".-", max_size=127))
def test_accepts_tags(first: str, rest: str) -> None:
    tag = Tag.parse(first + rest)
    assert str(tag) == tag.value == first + rest
    assert parse_reference(first + rest) == tag


@pytest.mark.parametrize(
    "text",
    ["", ".a", "-a", "a b", "a\n", "a/b", "a+b", "é", "\ud800", "a:b", "a" * 129, "a" * 10**6],
)
def test_refuses_other_tags(text: str) -> None:
    with pytest.raises(TagInvalidError) as caught:
        Tag.parse(text)
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 1000


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_a_reference(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert parse_reference(str(digest)) == digest


@pytest.mark.parametrize("text", [":", "sha256:", "sha256:xyz", "md5:" + "0" * 32, "tag:tag"])
def test_a_colon_asks_for_a_digest(text: str) -> None:
    with pytest.raises(DigestInvalidError):
        parse_reference(text)


def test_no_colon_asks_for_a_tag() -> None:
    with pytest.raises(TagInvalidError):
        parse_reference("-")


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except (TagInvalidError, DigestInvalidError):
        return
    assert str(reference) == text
