"""Selection of tags by patterns, ranges of versions, and the newest versions."""

import pytest

from registry.errors import InputInvalidError
from registry.oci.references import Tag
from registry.services.syncs.selectors import TagSelector, select_tags

TAGS = ["1", "1.2", "1.2.3", "v1.3.0", "1.10.0", "2.0.0-rc.1", "2.0.0", "2.0.0-alpine", "latest"]
"""`1` and `1.2` are moving names, and no versions."""


def select(*selectors: str, tags: list[str] = TAGS) -> list[str]:
    found = select_tags([TagSelector.parse(each) for each in selectors], list(map(Tag, tags)))
    return [str(tag) for tag in found]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("latest", ["latest"]),
        ("1.*", ["1.2", "1.2.3", "1.10.0"]),
        (">=1.3", ["v1.3.0", "1.10.0", "2.0.0"]),
        (">1.2", ["v1.3.0", "1.10.0", "2.0.0"]),
        (">1.2.2 <2", ["1.2.3", "v1.3.0", "1.10.0"]),
        ("<=1.2,>=1.2", ["1.2.3"]),
        ("=1.2", ["1.2.3"]),
        ("=v1.2.3", ["1.2.3"]),
        ("^1.2.3", ["1.2.3", "v1.3.0", "1.10.0"]),
        ("~1.2", ["1.2.3"]),
        ("~1", ["1.2.3", "v1.3.0", "1.10.0"]),
        ("newest:2", ["1.10.0", "2.0.0"]),
        ("newest:1:^1", ["1.10.0"]),
        ("newest:1:*-alpine", ["2.0.0-alpine"]),
        ("newest:9:latest", []),
    ],
)
def test_a_selector_selects(selector: str, expected: list[str]) -> None:
    assert select(selector) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("^0.2.3", ["0.2.3", "0.2.9"]),
        ("^0.0.3", ["0.0.3"]),
        ("^0.0", ["0.0.3"]),
        ("^0", ["0.2.3", "0.2.9", "0.3.0", "0.0.3"]),
    ],
)
def test_a_caret_keeps_the_first_number_that_is_not_0(selector: str, expected: list[str]) -> None:
    assert select(selector, tags=["0.2.3", "0.2.9", "0.3.0", "0.0.3", "1.0.0"]) == expected


def test_several_selectors_are_joined_and_none_selects_all() -> None:
    assert select("latest", "newest:1") == ["2.0.0", "latest"]
    assert select() == TAGS


def test_suffixes_are_ordered_as_prereleases() -> None:
    tags = ["1.0.0", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0-beta"]
    assert select("newest:3:*", tags=tags) == ["1.0.0", "1.0.0-rc.2", "1.0.0-rc.10"]


def test_tags_of_referrers_are_left_out() -> None:
    assert select(tags=["1.0", f"sha256-{'a' * 64}", f"sha256-{'a' * 64}.sig"]) == ["1.0"]


@pytest.mark.parametrize(
    "text",
    [
        ">=",
        "^1.2.3.4",
        "^01",
        ">=latest",
        ">1.2-rc",
        "^1 or 2",
        "newest:0",
        "newest:",
        "newest:x",
        "a b",
        "",
    ],
)
def test_an_invalid_selector_is_refused(text: str) -> None:
    with pytest.raises(InputInvalidError):
        TagSelector.parse(text)
