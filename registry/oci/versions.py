"""Tags that are semantic versions: `v1.2.3`, `1.2.3`, `1.2.3-rc.1`.

Source: Semantic Versioning 2.0.0. Build metadata is not supported, because tags cannot contain `+`.
`1.2` and `v1` are moving names, not versions.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
)

_RELEASE: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)
"""Sorts after every pre-release."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version, ordered by precedence (section 11). `rest` holds the pre-release identifiers."""

    major: int
    minor: int
    patch: int
    rest: tuple[tuple[int, int, str], ...]

    @classmethod
    def find(cls, tag: str) -> Self | None:
        """Return the version of the tag, or None if the tag is not a version."""
        match = _VERSION.fullmatch(tag)
        if match is None:
            return None
        rest = _RELEASE
        if match[4] is not None:
            # Numeric identifiers sort before alphanumeric ones, and numerically among themselves.
            rest = tuple(
                (0, int(part), "") if part.isdecimal() else (1, 0, str(part))
                for part in match[4].split(".")
            )
        return cls(int(match[1]), int(match[2]), int(match[3]), rest)

    @property
    def is_release(self) -> bool:
        return self.rest == _RELEASE


def find_last(versions: Iterable[Version], n: int) -> set[Version]:
    """Return the last `n` releases and pre-releases of each minor version.

    Only pre-releases newer than all releases of their minor version count: the others are
    superseded.
    """
    minors: defaultdict[tuple[int, int], set[Version]] = defaultdict(set)
    for version in versions:
        minors[version.major, version.minor].add(version)
    last: set[Version] = set()
    for minor in minors.values():
        ordered = sorted(minor, reverse=True)
        releases = [version for version in ordered if version.is_release]
        ahead = [version for version in ordered if not releases or version > releases[0]]
        last.update(releases[:n], ahead[:n])
    return last
