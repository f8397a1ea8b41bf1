"""Common types of input and output: names, times, durations, pages.

A pattern in `extra_json_schema` is only documented. The services check it, with better error
messages.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

from registry import clock
from registry.auth.policy.actions import GrantAction
from registry.errors import InputInvalidError
from registry.oci.references import Reference, Tag
from registry.units import parse_duration
from storage.digest import Digest, DigestInvalidError

T = TypeVar("T")
Row = TypeVar("Row")
Last = TypeVar("Last", int, str)

PAGE_SIZE = 1000
"""The default and the maximum number of entries on a page."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = (1 << 63) - 1  # the maximum of a database column


class _Silent(Struct, frozen=True):
    """A struct whose `repr` leaves out its values, because some are secrets."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class RequestModel(_Silent, frozen=True, forbid_unknown_fields=True):
    """The input of an operation, from the path, and from the query or the body."""


class ResponseModel(_Silent, frozen=True):
    """The output of an operation."""


def _schema(**schema: object) -> Meta:
    return Meta(extra_json_schema=schema)


Actions = Annotated[list[GrantAction], Meta(min_length=1)]
AccountName = Annotated[str, _schema(pattern="^[a-z0-9]+([._-][a-z0-9]+)*$", maxLength=64)]
UserName = Annotated[str, _schema(pattern="^[A-Za-z0-9_][A-Za-z0-9._@+-]*$", maxLength=254)]
Password = Annotated[str, _schema(minLength=8, maxLength=1024, pattern=r"^[^\x00-\x1f]*$")]
Pattern = Annotated[str, _schema(examples=["team/app", "team/*", "team/**", "**"])]
RepositoryText = Annotated[str, _schema(examples=["team/app"])]
TagText = Annotated[str, _schema(examples=["latest"])]
ReferenceText = Annotated[str, _schema(examples=["1.0"])]
DigestText = Annotated[str, _schema(pattern="^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$")]
SubjectText = Annotated[
    str, _schema(examples=["alice", "group:devs", "robot:ci", "authenticated", "anonymous"])
]
DurationText = Annotated[str, _schema(pattern="^[0-9]{1,19}(ms|s|m|h|d)$", examples=["90d", "24h"])]
Timestamp = Annotated[str, _schema(format="date-time", examples=["2026-11-23T19:12:00.123456Z"])]
# Databases reject NUL, and no name contains it.
Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
Number = Annotated[int, Meta(ge=0, le=_LARGEST)]
Size = Annotated[
    int,
    Meta(
        ge=1,
        description=f"The number of entries on the page. More than {PAGE_SIZE} means {PAGE_SIZE}.",
    ),
]


class NoInput(RequestModel, frozen=True):
    """No input."""


class PageRequest(RequestModel, frozen=True):
    """A page of a list by name: `n` entries after `last`."""

    n: Size = PAGE_SIZE
    last: Text = ""


class Page(ResponseModel, Generic[T], frozen=True):
    """A page of a list. `next` is the `last` of the next page, null on the last page."""

    items: list[T]
    next: str | None


def make_page(
    rows: Sequence[Row], n: int, show: Callable[[Row], T], key: Callable[[Row], str | int]
) -> Page[T]:
    """Return a page of `n` entries. An additional row shows that there is a next page."""
    more = len(rows) > n
    return Page([show(row) for row in rows[:n]], str(key(rows[n - 1])) if more else None)


async def make_visible_page(
    read: Callable[[int, Last], Awaitable[Sequence[Row]]],
    n: int,
    last: Last,
    *,
    is_visible: Callable[[Row], bool],
    show: Callable[[Row], T],
    key: Callable[[Row], Last],
) -> Page[T]:
    """Return a page of the `n` rows after `last` that the caller may see.

    `read(n, last)` returns the `n` rows after `last`, and `key` the `last` of a row.
    """
    found: list[Row] = []
    has_more = True
    while len(found) <= n and has_more:
        rows = await read(PAGE_SIZE, last)
        found += filter(is_visible, rows)
        has_more = len(rows) == PAGE_SIZE
        last = key(rows[-1]) if rows else last
    return make_page(found, n, show, key)


def clamp(n: int) -> int:
    return min(n, PAGE_SIZE)


def write_timestamp(us: int | None) -> str | None:
    """Format microseconds since the epoch; return None for None."""
    return None if us is None else clock.rfc3339(us)


def read_timestamp(moment: datetime) -> int:
    """Return microseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def read_duration(text: str | None) -> float | None:
    """Parse a duration to seconds; return None for None. Raises InputInvalidError."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise InputInvalidError(
            f"{text!r:.80} is not a duration; expected a form such as 200ms, 2s, 5m, 24h or 90d"
        ) from error


def read_digest(text: str) -> Digest:
    """Parse a digest; raise InputInvalidError."""
    try:
        return Digest.parse(text)
    except DigestInvalidError as error:
        raise InputInvalidError(str(error)) from error


def read_reference(text: str) -> Reference:
    """Parse a tag or a digest; raise TagInvalidError or InputInvalidError."""
    return read_digest(text) if ":" in text else Tag.parse(text)
