"""Repository patterns compared with equivalent regular expressions."""

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.policy.patterns import PatternScope, RepositoryPattern, list_covering, minimize
from registry.errors import PatternInvalidError
from registry.oci.names import RepositoryName, list_patterns

PARTS = ["a", "b", "a-b", "a.b", "a_b"]
# One part ("ab") begins like another ("a").
NAMES = [
    "/".join(parts)
    for depth in (1, 2, 3, 4)
    for parts in itertools.product(["a", "ab", "c"], repeat=depth)
]
PREFIXES = ["", *(name for name in NAMES if name.count("/") < 2 and "c" not in name)]
PATTERNS = [
    RepositoryPattern(prefix, reach)
    for prefix in PREFIXES
    for reach in PatternScope
    if prefix or reach is not PatternScope.EXACT
]


def test_what_two_speak_of() -> None:
    for one, other in itertools.product(PATTERNS, repeat=2):
        both = one.intersect(other)
        for name in NAMES:
            meant = one.matches(name) and other.matches(name)
            assert meant == (both is not None and both.matches(name)), f"{one}, {other}: {name}"


names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join)
patterns = st.one_of(
    names,
    names.map(lambda name: f"{name}/*"),
    names.map(lambda name: f"{name}/**"),
    st.sampled_from(["*", "**"]),
)


def meaning(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
    return re.compile(text)


@pytest.mark.parametrize(
    ("text", "prefix", "reach"),
    [
        ("team/app", "team/app", PatternScope.EXACT),
        ("app", "app", PatternScope.EXACT),
        ("team/*", "team", PatternScope.CHILDREN),
        ("team/app/**", "team/app", PatternScope.ALL),
        ("*", "", PatternScope.CHILDREN),
        ("**", "", PatternScope.ALL),
    ],
)
def test_reads_and_writes(text: str, prefix: str, reach: PatternScope) -> None:
    pattern = RepositoryPattern.parse(text)
    assert pattern == RepositoryPattern(prefix, reach)
    assert str(pattern) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "/*", "/**", "*/", "team/", "team//*", "***", "team/***", "*/app", "**/app"),
        *("team/*/app", "tea*m", "team*", "Team/*", "team/**/", "team/* ", "team/*\n", "*\n"),
        *("../**", "a b", "a:b", "\ud800", "\x00", "a" * 256, "a" * 256 + "/**"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(PatternInvalidError) as caught:
        RepositoryPattern.parse(text)
    caught.value.message.encode()


@given(patterns)
def test_what_is_written_is_read_again(text: str) -> None:
    assert str(RepositoryPattern.parse(text)) == text


@given(st.text() | st.text(alphabet="a/*", max_size=12))
def test_no_text_crashes(text: str) -> None:
    try:
        pattern = RepositoryPattern.parse(text)
    except PatternInvalidError:
        return
    assert str(pattern) == text
    if pattern.reach is PatternScope.EXACT:
        assert RepositoryName.parse(text).value == pattern.prefix


@given(patterns, names)
def test_matches_what_it_says(pattern: str, name: str) -> None:
    assert RepositoryPattern.parse(pattern).matches(name) == bool(meaning(pattern).fullmatch(name))


def test_a_namespace_is_more_than_the_start_of_a_name() -> None:
    team = RepositoryPattern.parse("team/**")
    assert team.matches("team/a/b")
    assert not any(team.matches(name) for name in ["team", "team-b/a", "teams/a", "a/team/b"])


def test_covers_means_every_repository_of_the_other() -> None:
    matched = {p: {name for name in NAMES if p.matches(name)} for p in PATTERNS}
    for one, other in itertools.product(PATTERNS, PATTERNS):
        assert one.covers(other) == (matched[one] >= matched[other]), f"{one} covers {other}"


@given(patterns, patterns, names)
def test_covers_is_never_too_much(one: str, other: str, name: str) -> None:
    wide, narrow = RepositoryPattern.parse(one), RepositoryPattern.parse(other)
    if wide.covers(narrow) and narrow.matches(name):
        assert wide.matches(name)


NESTED = ["a", "a/b", "a/b/c", "ab", "b", "a/bc", "a/b-c"]
EVERY = ["**", "*", *(f"{name}{tail}" for name in NESTED for tail in ("", "/*", "/**"))]


@pytest.mark.parametrize("name", NESTED)
def test_the_patterns_that_speak_of_a_repository(name: str) -> None:
    speaking = [text for text in EVERY if RepositoryPattern.parse(text).matches(name)]
    assert sorted(list_patterns(name)) == sorted(speaking)


def test_the_widest_patterns_speak_of_the_same_and_of_each_repository_once() -> None:
    chance = random.Random(1)
    for _ in range(200):
        some = [RepositoryPattern.parse(text) for text in chance.sample(EVERY, 4)]
        widest = minimize([*some, some[0]])
        for name in NESTED:
            matching = [pattern for pattern in widest if pattern.matches(name)]
            assert len(matching) == any(pattern.matches(name) for pattern in some)


def test_the_patterns_that_cover_another_are_listed() -> None:
    for text in EVERY:
        pattern = RepositoryPattern.parse(text)
        covering = [each for each in EVERY if RepositoryPattern.parse(each).covers(pattern)]
        assert sorted(list_covering(pattern)) == sorted(covering), text
