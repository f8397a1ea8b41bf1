"""Parsing of WWW-Authenticate."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client.challenges import Challenge, parse_challenges

TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=9)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
CHALLENGES = st.builds(
    Challenge, TOKENS.map(str.lower), st.dictionaries(TOKENS.map(str.lower), VALUES, min_size=1)
)


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("Negotiate", [("negotiate", {})]),
        ("Basic realm=plain", [("basic", {"realm": "plain"})]),
        ('BASIC Realm="a, b"', [("basic", {"realm": "a, b"})]),
        ("Bearer realm=https://x/token,service=x", [
            ("bearer", {"realm": "https://x/token", "service": "x"})]),
        ('Bearer realm="https://a/t", service="s",scope="repository:a:pull,push"', [
            ("bearer", {
                "realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"})]),
        ('Negotiate abc==, Basic realm="x",,Bearer realm = "y\\"z" , service=q', [
            ("negotiate", {}), ("basic", {"realm": "x"}),
            ("bearer", {"realm": 'y"z', "service": "q"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [Challenge(*each) for each in expected]


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="open',
        'Bearer realm="a" junk',
        'Bearer realm="a"junk="b"',
        'Bearer realm="a",realm="b"',
        '"Bearer"',
        "Bearer realm=",
        "@",
    ],
)
def test_malformed_ones(header: str) -> None:
    assert not any(each.parameters.get("realm") for each in _parse(header))


def _parse(header: str) -> list[Challenge]:
    try:
        return parse_challenges(header)
    except ValueError:
        return []


@given(st.lists(CHALLENGES, max_size=4))
def test_challenges_as_they_were_written(challenges: list[Challenge]) -> None:
    header = ", ".join(
        f"{each.scheme} " + ",".join(f"{k}={quoted(v)}" for k, v in each.parameters.items())
        for each in challenges
    )
    assert parse_challenges(header) == challenges


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    _parse(text)
