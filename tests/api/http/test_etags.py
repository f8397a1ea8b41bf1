"""Entity tags, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.http.etags import is_unchanged, parse_etags
from storage.digest import Digest

ETAG = str(Digest.of(b"a blob"))
OTHER = str(Digest.of(b"another"))

# Source: RFC 9110 section 8.8.3, etagc.
opaque = st.text(st.characters(codec="latin-1", exclude_characters='"\x7f', min_codepoint=0x21))
tags = st.tuples(st.booleans(), opaque)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("*", ("*",)),
        (" * ", ("*",)),
        (f'"{ETAG}"', (ETAG,)),
        (f'W/"{ETAG}"', (ETAG,)),
        (f'"{ETAG}", "{OTHER}"', (ETAG, OTHER)),
        (f'"{ETAG}","{OTHER}"', (ETAG, OTHER)),
        (f'"{OTHER}" , W/"{ETAG}"', (OTHER, ETAG)),
        ('"a,b", "c"', ("a,b", "c")),
        ('""', ("",)),
        ("", ()),
        (ETAG, ()),
        (f"'{ETAG}'", ()),
        (f'"{ETAG}', ()),
        ("**", ()),
    ],
)
def test_2_entity_tags_are_read(header: str, expected: tuple[str, ...]) -> None:
    assert parse_etags(header, weak=True) == expected


def test_2_a_star_in_quotes_is_no_wildcard() -> None:
    assert parse_etags('"*"', weak=True) == ()
    assert parse_etags(f'"*", "{ETAG}"', weak=False) == (ETAG,)
    assert not is_unchanged('"*"', ETAG)


def test_7_weak_tags_do_not_count_where_the_comparison_is_strong() -> None:
    assert parse_etags(f'W/"{ETAG}"', weak=False) == ()
    assert parse_etags(f'W/"{ETAG}", "{OTHER}"', weak=False) == (OTHER,)
    assert parse_etags("*", weak=False) == ("*",)


@given(st.lists(tags))
def test_2_a_list_comes_back(listed: list[tuple[bool, str]]) -> None:
    header = ", ".join(f'{"W/" if weak else ""}"{tag}"' for weak, tag in listed)
    expected = tuple(tag for _, tag in listed if tag != "*")
    assert parse_etags(header, weak=True) == expected
    strong = tuple(tag for weak, tag in listed if tag != "*" and not weak)
    assert parse_etags(header, weak=False) == strong


@pytest.mark.parametrize(
    ("header", "unchanged"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (f'"{ETAG}"', True),
        (f'W/"{ETAG}"', True),
        (f'"{OTHER}"', False),
        (f'"{OTHER}", "{ETAG}"', True),
        (f'"{ETAG[:-1]}"', False),
        (f'"{ETAG} "', False),
        (f'"{ETAG.upper()}"', False),
    ],
)
def test_2_if_none_match_knows_what_the_client_has(header: str | None, unchanged: bool) -> None:
    assert is_unchanged(header, ETAG) is unchanged
