"""Pure functions that decide which tags and manifests of a repository the rules drop.

The rules of all patterns that match a repository apply together. A tag is dropped if and only if a
drop rule selects it and no keep rule protects it (docs/guides/retention.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata.retention.usage_of_tags import TagUse, UntaggedManifest
from registry.oci.tag_patterns import find_match
from registry.oci.versions import Version, find_last
from registry.services.retention.condition_fields import NewestBy
from registry.services.retention.conditions import (
    Conditions,
    parse_age,
    parse_tag_patterns,
)
from storage.digest import Digest

Item = TypeVar("Item", bound=TagUse | UntaggedManifest)

_Kept = dict[str, tuple[RepositoryPattern | None, str]]
"""Kept tags, with the pattern of the deciding rules and the reason."""


class RetentionRule(Conditions, frozen=True):
    """The rules of a repository pattern."""

    pattern: RepositoryPattern


class Decision(Struct, Generic[Item], frozen=True):
    """The decision about a tag or an untagged manifest.

    `rule` is the repository pattern of the deciding rules, or None if no rule decides. `bytes` are
    freed if the item is dropped.
    """

    item: Item
    is_dropped: bool
    reason: str
    rule: RepositoryPattern | None = None
    bytes: int = 0


def used_at(tag: TagUse) -> int:
    """Return the time of the last push or pull of the tag, in microseconds."""
    return max(tag.pushed_at, tag.pulled_at or 0)


def decide_tags(
    rules: Sequence[RetentionRule],
    tags: Sequence[TagUse],
    protected: Mapping[str, str],
    now: int,
) -> list[Decision[TagUse]]:
    """Decide about each tag of a repository, in the given order.

    `protected` maps tags that no rule can drop to the reason. `now` is in microseconds.
    """
    kept: _Kept = {name: (None, reason) for name, reason in protected.items()}
    kept |= _keep_matching(rules, [tag for tag in tags if tag.name not in kept])
    kept |= _keep_versions(rules, [tag for tag in tags if tag.name not in kept], tags)
    kept |= _keep_newest(rules, [tag for tag in tags if tag.name not in kept])
    decisions = []
    for tag in tags:
        if tag.name in kept:
            rule, reason = kept[tag.name]
            decisions.append(Decision(tag, False, reason, rule))
        else:
            decisions.append(_select(rules, tag, now))
    return decisions


def _keep_matching(rules: Iterable[RetentionRule], tags: Sequence[TagUse]) -> _Kept:
    kept: _Kept = {}
    for rule in rules:
        keep = parse_tag_patterns(rule.keep)
        for tag in tags:
            match = find_match(keep, tag.name)
            if match is not None:
                kept.setdefault(tag.name, (rule.pattern, f"keep {match}"))
    return kept


def _keep_versions(
    rules: Iterable[RetentionRule], left: Sequence[TagUse], tags: Sequence[TagUse]
) -> _Kept:
    """Keep the last versions of each minor version, among all tags that are versions."""
    kept: _Kept = {}
    for rule in rules:
        if rule.keep_per_minor is None:
            continue
        found = {tag.name: version for tag in tags if (version := Version.find(tag.name))}
        last = find_last(found.values(), rule.keep_per_minor)
        for tag in left:
            version = found.get(tag.name)
            if version in last:
                minor = f"{version.major}.{version.minor}"
                reason = f"among the last {rule.keep_per_minor} of {minor}"
                kept.setdefault(tag.name, (rule.pattern, reason))
    return kept


def _keep_newest(rules: Iterable[RetentionRule], tags: Sequence[TagUse]) -> _Kept:
    """Keep the newest tags. Tags that another rule keeps do not count toward the number."""
    kept: _Kept = {}
    for rule in rules:
        if rule.keep_newest is None:
            continue
        by_pull = rule.by is NewestBy.PULL
        ordered = sorted(
            tags,
            key=lambda tag: (used_at(tag) if by_pull else tag.pushed_at, tag.name),
            reverse=True,
        )
        reason = f"among the newest {rule.keep_newest} by {rule.by.value}"
        for tag in ordered[: rule.keep_newest]:
            kept.setdefault(tag.name, (rule.pattern, reason))
    return kept


def _select(rules: Iterable[RetentionRule], tag: TagUse, now: int) -> Decision[TagUse]:
    """Decide about a tag that no rule keeps."""
    for rule in rules:
        match = find_match(parse_tag_patterns(rule.drop), tag.name)
        if match is not None:
            return Decision(tag, True, f"drop {match}", rule.pattern)
        age = rule.drop_not_pulled
        if age is not None and used_at(tag) <= now - parse_age(age):
            return Decision(tag, True, f"not pulled for {age}", rule.pattern)
    return Decision(tag, False, "matches no drop rule")


def decide_untagged(
    rules: Sequence[RetentionRule],
    manifests: Sequence[UntaggedManifest],
    protected: Mapping[Digest, str],
    *,
    now: int,
    grace: int,
) -> list[Decision[UntaggedManifest]]:
    """Decide about untagged manifests.

    No manifest is dropped within `grace` of its last push, tag or pull, because a push in progress
    may refer to it.
    """
    return [
        _decide_untagged_manifest(rules, each, protected.get(each.digest), now, grace)
        for each in manifests
    ]


def _decide_untagged_manifest(
    rules: Iterable[RetentionRule],
    manifest: UntaggedManifest,
    protection: str | None,
    now: int,
    grace: int,
) -> Decision[UntaggedManifest]:
    if protection is not None:
        return Decision(manifest, False, protection)
    for rule in rules:
        age = rule.drop_untagged
        if age is None or manifest.untagged_at > now - parse_age(age):
            continue
        if max(manifest.untagged_at, manifest.pulled_at or 0) > now - grace:
            return Decision(
                manifest,
                False,
                "within the grace period: a push in progress may refer to it",
                rule.pattern,
            )
        return Decision(manifest, True, f"untagged for {age}", rule.pattern)
    return Decision(manifest, False, "matches no drop rule")
