"""Versions that tags tell: `v1.2.3`, `1.2.3`, `1.2.3-rc.1`.

Source: Semantic Versioning 2.0.0. Build metadata needs a `+`, which no tag has. `1.2` and `v1` are
names that move, not versions.
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
"""Comes after everything that a pre-release can say."""


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version, ordered by precedence (section 11). `rest` says what pre-release it is."""

    major: int
    minor: int
    patch: int
    rest: tuple[tuple[int, int, str], ...]

    @classmethod
    def find(cls, tag: str) -> Self | None:
        """The version that the tag is; None if it is none."""
        match = _VERSION.fullmatch(tag)
        if match is None:
            return None
        rest = _RELEASE
        if match[4] is not None:
            # Numbers come before words, and among themselves in their order.
            rest = tuple(
                (0, int(part), "") if part.isdecimal() else (1, 0, str(part))
                for part in match[4].split(".")
            )
        return cls(int(match[1]), int(match[2]), int(match[3]), rest)

    @property
    def is_release(self) -> bool:
        return self.rest == _RELEASE


def find_last(versions: Iterable[Version], n: int) -> set[Version]:
    """The last `n` releases of each minor version, and the last `n` of the pre-releases that come
    after all its releases: one whose release is out is of no more use.
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
