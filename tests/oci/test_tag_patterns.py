"""Patterns of tags."""

import pytest

from registry.errors import PatternInvalidError
from registry.oci.tag_patterns import TagPattern, find_match


@pytest.mark.parametrize(
    ("pattern", "match", "other"),
    [
        ("latest", ["latest"], ["latest-1", "Latest"]),
        ("v*", ["v", "v1.2"], ["dev", "V1"]),
        ("*", ["a", "_", "1.0"], []),
        ("v?", ["v1"], ["v", "v12"]),
        ("[0-9]*", ["1.0", "9"], ["v1"]),
        ("[!v]*", ["1.0"], ["v1"]),
        ("1.2", ["1.2"], ["1x2"]),
    ],
)
def test_what_matches(pattern: str, match: list[str], other: list[str]) -> None:
    parsed = TagPattern.parse(pattern)
    assert str(parsed) == pattern
    assert [tag for tag in match + other if parsed.matches(tag)] == match


def test_the_first_that_matches() -> None:
    patterns = [TagPattern.parse(text) for text in ("x*", "v1*", "v*")]
    assert find_match(patterns, "v1.2") == patterns[1]
    assert find_match(patterns, "latest") is None


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:b", "ä", "x" * 129, "a\n", "a,b", "{a}"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(PatternInvalidError):
        TagPattern.parse(text)
