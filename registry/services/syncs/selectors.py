"""Selection of the tags that a sync copies."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from registry.errors import InputInvalidError
from registry.oci.references import Tag
from registry.oci.tag_patterns import TagPattern
from registry.oci.versions import Version
from registry.services.syncs.versions import VersionRange, is_range

NEWEST = "newest:"

_NEWEST = re.compile(r"newest:([1-9][0-9]{0,5})(?::(.+))?")

REFERRERS_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(\.[a-z]+)?")
"""Tags of referrers and signatures, as cosign and clients of older registries set them."""


@dataclass(frozen=True, slots=True)
class TagSelector:
    """A selector: a tag pattern, a range of versions, or the `most` newest versions of either."""

    text: str
    _matches: Callable[[str], bool]
    _most: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `GLOB`, `RANGE`, `newest:N` or `newest:N:GLOB|RANGE`.

        Raises InputInvalidError, and PatternInvalidError for an invalid tag pattern.
        """
        if not text.startswith(NEWEST):
            return cls(text, _parse(text), None)
        match = _NEWEST.fullmatch(text)
        if match is None:
            raise InputInvalidError(
                f"{text[:128]!a} is not a number of versions; expected a form such as newest:3, "
                "'newest:3:*-alpine' or 'newest:3:^1.4'"
            )
        matches = _parse(match[2]) if match[2] else _is_release
        return cls(text, matches, int(match[1]))

    def select(self, tags: Iterable[str]) -> list[str]:
        """Return the tags that are selected. Newest means the highest versions, not dates."""
        found = [tag for tag in tags if self._matches(tag)]
        if self._most is None:
            return found
        versions = [(Version.find(tag), tag) for tag in found]
        ordered = sorted((each, tag) for each, tag in versions if each is not None)
        return [tag for _, tag in ordered[-self._most :]]


def select_tags(selectors: Sequence[TagSelector], tags: Sequence[Tag]) -> list[Tag]:
    """Return the tags that at least one selector selects, in order; all if there is none.

    Tags of referrers are left out: they belong to the images that they name.
    """
    ordinary = [str(tag) for tag in tags if not REFERRERS_TAG.fullmatch(str(tag))]
    if not selectors:
        return [Tag(each) for each in ordinary]
    chosen = {tag for each in selectors for tag in each.select(ordinary)}
    return [Tag(each) for each in ordinary if each in chosen]


def _parse(text: str) -> Callable[[str], bool]:
    if not is_range(text):
        return TagPattern.parse(text).matches
    versions = VersionRange.parse(text)

    def matches(tag: str) -> bool:
        version = Version.find(tag)
        return version is not None and versions.matches(version)

    return matches


def _is_release(tag: str) -> bool:
    version = Version.find(tag)
    return version is not None and version.is_release
