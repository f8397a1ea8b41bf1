"""Decisions on tags and manifests: a year of nightly builds, and random rules with an oracle."""

import fnmatch
from datetime import date, timedelta
from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata.retention.usage_of_tags import TagUse, UntaggedManifest
from registry.services.retention.condition_fields import NewestBy
from registry.services.retention.conditions import parse_age
from registry.services.retention.plan import (
    Decision,
    RetentionRule,
    decide_tags,
    decide_untagged,
)
from storage.digest import Digest

DAY = 86_400 * 1_000_000
NOW = 400 * DAY
ALL = RepositoryPattern.parse("**")
APP = RepositoryPattern.parse("team/app")


def tag(name: str, pushed: int, pulled: int | None = None) -> TagUse:
    return TagUse(
        name, Digest.of(name.encode()), pushed * DAY, None if pulled is None else pulled * DAY
    )


def going(decisions: list[Decision[TagUse]]) -> list[str]:
    return [each.item.name for each in decisions if each.is_dropped]


def by_name(decisions: list[Decision[TagUse]]) -> dict[str, tuple[bool, str]]:
    return {each.item.name: (each.is_dropped, each.reason) for each in decisions}


# A year: a nightly build a day, a pre-release a week, a release a month, and `latest`.

NIGHTS = [f"nightly-{date(2025, 1, 1) + timedelta(days=day)}" for day in range(365)]


def year() -> list[TagUse]:
    tags = [tag(name, day) for day, name in enumerate(NIGHTS)]
    for week in range(52):
        month = week // 4
        tags.append(tag(f"v1.{month}.0-rc.{week % 4 + 1}", week * 7))
        if week % 4 == 3:
            tags.append(tag(f"v1.{month}.0", week * 7 + 1))
            tags.append(tag(f"v1.{month}.1", week * 7 + 2))
    tags.append(tag("latest", 364, 399))
    return sorted(tags, key=lambda each: each.name)


def test_a_year_of_nightly_builds() -> None:
    rules = [
        RetentionRule(ALL, keep=("latest",), keep_per_minor=1),
        RetentionRule(APP, keep_newest=14, drop=("*",)),
    ]
    decided = decide_tags(rules, year(), {}, NOW)
    newest = [*NIGHTS[-12:], "v1.12.0", "v1.12.0-rc.4"]
    last = [f"v1.{month}.1" for month in range(13)]
    assert {each.item.name for each in decided if not each.is_dropped} == {"latest", *newest, *last}
    said = by_name(decided)
    assert said["latest"] == (False, "keep latest")
    assert said[NIGHTS[-12]] == (False, "among the newest 14 by push")
    assert said[NIGHTS[-13]] == (True, "drop *")
    assert said["v1.3.0"] == (True, "drop *")
    assert said["v1.3.1"] == (False, "among the last 1 of 1.3")
    assert {each.rule for each in decided} == {ALL, APP}


def test_a_year_of_nightly_builds_that_nobody_pulls() -> None:
    pulled = {NIGHTS[3]: 395, NIGHTS[-1]: 365}
    tags = [tag(each.name, each.pushed_at // DAY, pulled.get(each.name)) for each in year()]
    rules = [RetentionRule(APP, keep=("v*", "latest"), keep_newest=2, drop_not_pulled="30d")]
    decided = decide_tags(rules, tags, {}, NOW)
    # Day 399 is not over, so 30 days ago was day 370, after all pushes.
    assert going(decided) == sorted(set(NIGHTS) - {NIGHTS[3], *NIGHTS[-2:]})
    by_pull = [replace(rules[0], by=NewestBy.PULL)]
    # By pull, the recently pulled tag counts as one of the newest.
    assert going(decide_tags(by_pull, tags, {}, NOW)) == sorted(
        set(NIGHTS) - {NIGHTS[3], NIGHTS[-1]}
    )


def test_rules_that_only_keep_drop_nothing() -> None:
    rules = [RetentionRule(ALL, keep=("x",), keep_newest=1, keep_per_minor=1)]
    decided = by_name(decide_tags(rules, year(), {}, NOW))
    assert decided["nightly-2025-01-01"] == (False, "matches no drop rule")
    assert not any(goes for goes, _ in decided.values())


def test_an_age_is_reached_at_its_last_moment() -> None:
    rules = [RetentionRule(ALL, drop_not_pulled="10d")]
    for pushed, pulled, goes in (
        (390, None, True),
        (391, None, False),
        (380, 390, True),
        (380, 391, False),
        (395, 380, False),  # The manifest was pulled before the tag moved to it.
    ):
        assert bool(going(decide_tags(rules, [tag("a", pushed, pulled)], {}, NOW))) is goes


def test_what_is_protected_goes_by_no_rule_and_takes_no_place() -> None:
    rules = [RetentionRule(ALL, keep_newest=1, drop=("*",))]
    tags = [tag("a", 1), tag("b", 2), tag("c", 3)]
    decided = by_name(decide_tags(rules, tags, {"c": "held"}, NOW))
    assert decided == {
        "a": (True, "drop *"),
        "b": (False, "among the newest 1 by push"),
        "c": (False, "held"),
    }


# Random rules compared with a simple and slow oracle.

VERSION_NAMES = [
    f"{v}{minor}.{patch}{rest}"
    for v in ("1.", "v1.")
    for minor in (0, 1)
    for patch in (0, 1, 2)
    for rest in ("", "-rc.1", "-rc.2", "-rc.10", "-rc.x")
]
NAMES = ["latest", "edge", "a1", "a2", "a3", "b1", "b2", *VERSION_NAMES]
GLOBS = ["*", "a*", "?1", "v*", "*.0", "[!v]*", "latest", "*rc*"]
days = st.integers(380, 400)
globs = st.lists(st.sampled_from(GLOBS), max_size=2).map(tuple)
counts = st.none() | st.integers(1, 4)
rules_of = st.lists(
    st.builds(
        RetentionRule,
        st.sampled_from([ALL, APP]),
        keep=globs,
        keep_newest=counts,
        by=st.sampled_from(NewestBy),
        keep_per_minor=counts,
        drop=globs,
        drop_not_pulled=st.none() | st.integers(0, 20).map(lambda n: f"{n}d"),
    ),
    max_size=3,
)
tags_of = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(days, st.none() | days), max_size=25
).map(lambda found: [tag(name, *at) for name, at in sorted(found.items())])


def comes_before(one: str, other: str) -> bool:
    """Return whether one version precedes another (Semantic Versioning, section 11.4)."""
    (numbers, _, rest), (numbers2, _, rest2) = one.partition("-"), other.partition("-")
    first = [int(number) for number in numbers.lstrip("v").split(".")]
    second = [int(number) for number in numbers2.lstrip("v").split(".")]
    if first != second:
        return first < second
    if not rest or not rest2:
        return bool(rest) and not rest2
    for left, right in zip_longest(rest.split("."), rest2.split(".")):
        if left == right:
            continue
        if left is None or right is None:
            return left is None
        if left.isdigit() and right.isdigit():
            return int(left) < int(right)
        return left.isdigit() or (not right.isdigit() and left < right)
    return False


def is_last(name: str, n: int, names: list[str]) -> bool:
    minor = name.lstrip("v").split(".")[:2]
    peers = {
        each.lstrip("v")
        for each in names
        if each in VERSION_NAMES and each.lstrip("v").split(".")[:2] == minor
    }
    releases = {each for each in peers if "-" not in each}
    if "-" in name:
        if any(not comes_before(release, name) for release in releases):
            return False
        peers -= releases
    else:
        peers = releases
    return len([each for each in peers if comes_before(name, each)]) < n


def expect(
    rules: list[RetentionRule], tags: list[TagUse], protected: set[str], each: TagUse
) -> bool:
    """Return whether the rules drop the tag."""

    def used(one: TagUse) -> int:
        return max(one.pushed_at, one.pulled_at or 0)

    def is_kept(one: TagUse) -> bool:
        """Return whether anything other than its age keeps the tag."""
        names = [other.name for other in tags]
        return (
            one.name in protected
            or any(fnmatch.fnmatchcase(one.name, g) for rule in rules for g in rule.keep)
            or any(
                rule.keep_per_minor is not None
                and one.name in VERSION_NAMES
                and is_last(one.name, rule.keep_per_minor, names)
                for rule in rules
            )
        )

    if is_kept(each):
        return False
    for rule in rules:
        key = used if rule.by is NewestBy.PULL else (lambda one: one.pushed_at)
        newer = [
            other
            for other in tags
            if not is_kept(other) and (key(other), other.name) > (key(each), each.name)
        ]
        if rule.keep_newest is not None and len(newer) < rule.keep_newest:
            return False
    return any(
        any(fnmatch.fnmatchcase(each.name, g) for g in rule.drop)
        or (
            rule.drop_not_pulled is not None and NOW - used(each) >= parse_age(rule.drop_not_pulled)
        )
        for rule in rules
    )


@settings(deadline=None, max_examples=150)
@given(rules_of, tags_of, st.sets(st.sampled_from(NAMES), max_size=3))
def test_any_rules_do_as_the_oracle(
    rules: list[RetentionRule], tags: list[TagUse], protected: set[str]
) -> None:
    decided = decide_tags(rules, tags, dict.fromkeys(protected, "held"), NOW)
    assert [each.item for each in decided] == tags
    assert going(decided) == [e.name for e in tags if expect(rules, tags, protected, e)]
    for each in decided:
        assert each.rule is None or each.rule in {rule.pattern for rule in rules}
        assert not each.is_dropped or each.rule is not None


# Untagged manifests


def test_manifests_without_a_tag() -> None:
    def decide(loose_at: int, pulled_at: int | None, age: int | None, why: str = "") -> str:
        digest = Digest.of(b"a")
        each = UntaggedManifest(digest, loose_at * DAY, pulled_at and pulled_at * DAY)
        rules = [RetentionRule(APP, drop_untagged=None if age is None else f"{age}d")]
        [decided] = decide_untagged(
            rules, [each], {digest: why} if why else {}, now=NOW, grace=2 * DAY
        )
        return f"{'goes' if decided.is_dropped else 'stays'}: {decided.reason}"

    soon = "stays: within the grace period: a push in progress may refer to it"
    assert decide(390, None, 10) == "goes: untagged for 10d"
    assert decide(391, None, 10) == "stays: matches no drop rule"
    assert decide(390, None, None) == "stays: matches no drop rule"
    assert decide(390, None, 10, "held") == "stays: held"
    # An old pull keeps nothing. A recent one does, because a client may check before it pushes.
    assert decide(390, 397, 10) == "goes: untagged for 10d"
    assert decide(390, 399, 10) == soon
    assert decide(399, None, 1) == soon
