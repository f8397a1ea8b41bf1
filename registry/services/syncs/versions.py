"""Ranges of versions, such as `>=1.20 <2`, `^1.4` and `~3.19`.

The versions of tags are those of `registry.oci.versions`: `1.2` and `v1` are moving names.
"""

import re
from dataclasses import dataclass
from typing import Self

from registry.errors import InputInvalidError
from registry.oci.versions import Version

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_COMPARISON = re.compile(
    rf"(>=|<=|>|<|=|\^|~) ?v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?(?:[ ,]+|$)"
)
_OPERATORS = (">", "<", "=", "^", "~")

_Numbers = tuple[int, int, int]
_START: _Numbers = (0, 0, 0)


def is_range(text: str) -> bool:
    """Return whether the text is meant as a range. No tag begins with one of these characters."""
    return text.startswith(_OPERATORS)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A range: each comparison is the first version in it, and the first one after it."""

    comparisons: tuple[tuple[_Numbers, _Numbers | None], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse comparisons that are separated by spaces or commas, and must all hold.

        Raises InputInvalidError.
        """
        found, end = [], 0
        while match := _COMPARISON.match(text, end):
            numbers = [int(each) for each in match.groups()[1:] if each is not None]
            found.append(_read(match[1], numbers))
            end = match.end()
        if end < len(text) or not found:
            raise InputInvalidError(
                f"{text[:128]!a} is not a range of versions; expected comparisons such as "
                "'>=1.20 <2', '^1.4' or '~3.19'"
            )
        return cls(tuple(found))

    def matches(self, version: Version) -> bool:
        """Return whether the version is in the range. A pre-release never is."""
        numbers = (version.major, version.minor, version.patch)
        return version.is_release and all(
            first <= numbers and (end is None or numbers < end) for first, end in self.comparisons
        )


def _read(operator: str, given: list[int]) -> tuple[_Numbers, _Numbers | None]:
    first, second, third = (*given, 0, 0)[:3]
    numbers, last = (first, second, third), len(given) - 1
    # `^` keeps the first number that is not 0.
    fixed = next((at for at, number in enumerate(numbers) if number), 2)
    comparisons = {
        ">=": (numbers, None),
        ">": (_increment(numbers, last), None),
        "<": (_START, numbers),
        "<=": (_START, _increment(numbers, last)),
        "=": (numbers, _increment(numbers, last)),
        "~": (numbers, _increment(numbers, min(last, 1))),
        "^": (numbers, _increment(numbers, min(last, fixed))),
    }
    return comparisons[operator]


def _increment(numbers: _Numbers, at: int) -> _Numbers:
    first, second, third = (*numbers[:at], numbers[at] + 1, 0, 0)[:3]
    return first, second, third
