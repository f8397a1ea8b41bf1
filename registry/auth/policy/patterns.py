"""Patterns of repositories in grants: `team/app`, `team/*`, `team/**` or `**`."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Self

from registry.errors import NameInvalidError, PatternInvalidError
from registry.oci.names import RepositoryName, list_patterns


class PatternScope(Enum):
    """How far below its prefix a pattern matches. The value is the suffix of the pattern."""

    EXACT = ""
    CHILDREN = "*"
    ALL = "**"


@dataclass(frozen=True, slots=True)
class RepositoryPattern:
    """A pattern. `prefix` is a repository name, or empty for `*` and `**` without a prefix."""

    prefix: str
    reach: PatternScope

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a pattern; raise PatternInvalidError."""
        head, slash, tail = text.rpartition("/")
        reach = {"*": PatternScope.CHILDREN, "**": PatternScope.ALL}.get(tail, PatternScope.EXACT)
        prefix = text if reach is PatternScope.EXACT else head
        try:
            if prefix or slash or reach is PatternScope.EXACT:
                RepositoryName.parse(prefix)
        except NameInvalidError as error:
            raise PatternInvalidError(
                f"invalid pattern {text[:255]!r}; patterns are team/app, team/* (one "
                "level), team/** (all below) and ** (everything)"
            ) from error
        return cls(prefix, reach)

    def __str__(self) -> str:
        return "/".join(part for part in (self.prefix, self.reach.value) if part)

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches the repository."""
        if self.reach is PatternScope.EXACT:
            return name == self.prefix
        below = f"{self.prefix}/" if self.prefix else ""
        if not name.startswith(below):
            return False
        return self.reach is PatternScope.ALL or "/" not in name[len(below) :]

    def covers(self, other: "RepositoryPattern") -> bool:
        """Return whether this pattern matches every repository that `other` matches."""
        if other.reach is PatternScope.EXACT:
            return self.matches(other.prefix)
        if self.reach is not PatternScope.ALL:
            return self == other
        return not self.prefix or f"{other.prefix}/".startswith(f"{self.prefix}/")

    def intersect(self, other: "RepositoryPattern") -> "RepositoryPattern | None":
        """Return the pattern of the repositories that both match: one of the two, or None."""
        if self.covers(other):
            return other
        return self if other.covers(self) else None


EVERYTHING = RepositoryPattern("", PatternScope.ALL)


def minimize(patterns: Iterable[RepositoryPattern]) -> list[RepositoryPattern]:
    """Return the patterns that no other one covers.

    Together they match the same repositories, each by exactly one pattern.
    """
    each = {str(pattern): pattern for pattern in patterns}
    return [
        pattern
        for text, pattern in each.items()
        if not any(other in each for other in list_covering(pattern) if other != text)
    ]


def list_covering(pattern: RepositoryPattern) -> list[str]:
    """Return the text of all patterns that cover this one, itself included.

    Their number depends on the depth of the pattern only.
    """
    if pattern.reach is PatternScope.EXACT:
        return list_patterns(pattern.prefix)
    found = {str(pattern): None, str(EVERYTHING): None}
    parent = pattern.prefix
    while parent:
        found[f"{parent}/{PatternScope.ALL.value}"] = None
        parent, _, _ = parent.rpartition("/")
    return list(found)
