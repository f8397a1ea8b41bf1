"""Tag patterns, such as `v*`, `nightly-????`, `[0-9]*`, in the style of shell file patterns."""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from registry.errors import PatternInvalidError

_PATTERN = re.compile(r"[a-zA-Z0-9._*?\[\]!-]{1,128}")


@dataclass(frozen=True, slots=True, order=True)
class TagPattern:
    """A tag pattern. Untrusted text must go through `parse`.

    `*` matches any text, `?` one character, `[abc]` and `[a-c]` one character of a set, `[!…]` one
    character that is not in the set.
    """

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a pattern. Raises PatternInvalidError."""
        if not _PATTERN.fullmatch(text):
            raise PatternInvalidError(
                f"invalid tag pattern {text[:128]!a}: use 1 to 128 characters of tag names "
                "and of * ? [ ] !"
            )
        return cls(text)

    def __str__(self) -> str:
        return self.value

    def matches(self, tag: str) -> bool:
        return fnmatch.fnmatchcase(tag, self.value)


def find_match(patterns: Iterable[TagPattern], tag: str) -> TagPattern | None:
    """Return the first pattern that matches the tag."""
    return next((pattern for pattern in patterns if pattern.matches(tag)), None)
