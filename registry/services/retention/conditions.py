"""The conditions of a retention rule.

Their input and output in the admin API and their JSON in the database are made from the types here
and the descriptions in `condition_fields`. A new field needs its decision in `plan`.
"""

import functools
from typing import Annotated, Any, Self

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from registry.errors import InputInvalidError
from registry.oci.tag_patterns import TagPattern
from registry.services.retention.condition_fields import FIELDS, FieldKind, NewestBy
from registry.units import format_duration, parse_duration

_MOST = (1 << 31) - 1


_TagPatterns = Annotated[
    tuple[
        Annotated[
            str,
            Meta(
                extra_json_schema={
                    "pattern": r"^[a-zA-Z0-9._*?\[\]!-]{1,128}$",
                    "examples": ["v*", "nightly-*"],
                }
            ),
        ],
        ...,
    ],
    Meta(max_length=100),
]
_Count = Annotated[int, Meta(ge=1, le=_MOST)]
_Duration = Annotated[
    str,
    Meta(
        extra_json_schema={"pattern": "^[0-9]{1,19}(ms|s|m|h|d)$", "examples": ["90d", "24h"]},
    ),
]


def _describe(name: str) -> Meta:
    return Meta(description=FIELDS[name].description)


class Conditions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions that keep or drop. None and an empty list mean that there is no such rule."""

    keep: Annotated[_TagPatterns, _describe("keep")] = ()
    keep_newest: Annotated[_Count | None, _describe("keep_newest")] = None
    by: Annotated[NewestBy, _describe("by")] = NewestBy.PUSH
    keep_per_minor: Annotated[_Count | None, _describe("keep_per_minor")] = None
    drop: Annotated[_TagPatterns, _describe("drop")] = ()
    drop_not_pulled: Annotated[_Duration | None, _describe("drop_not_pulled")] = None
    drop_untagged: Annotated[_Duration | None, _describe("drop_untagged")] = None

    def values(self) -> dict[str, Any]:
        """Return the values of all fields by name, without those of a subclass."""
        return {name: getattr(self, name) for name in FIELDS}

    def list_given(self) -> dict[str, Any]:
        """Return the values of the fields that are not the default."""
        return {name: value for name, value in self.values().items() if value != _DEFAULTS[name]}

    @property
    def drops(self) -> bool:
        """Whether any of the rules drops something."""
        return any(FIELDS[name].drops for name in self.list_given())

    def keep_only(self) -> Self:
        """Return the rules that keep, without those that drop."""
        return replace(self, **{name: _DEFAULTS[name] for name in FIELDS if FIELDS[name].drops})

    def normalize(self) -> Self:
        """Return the same rules, with each duration in its largest unit.

        Raises InputInvalidError if a value is invalid or there is no rule.
        """
        given = self.list_given()
        if not given.keys() - {"by"}:
            raise InputInvalidError("no rules given: set at least one of the keep or drop options")
        if "by" in given and self.keep_newest is None:
            raise InputInvalidError("`by` requires `keep_newest`")
        for name, value in given.items():
            if FIELDS[name].kind is FieldKind.TAG_PATTERNS:
                parse_tag_patterns(value)
            elif FIELDS[name].kind is FieldKind.DURATION:
                given[name] = _normalize_duration(name, value)
        return replace(self, **given)

    def describe(self) -> str:
        """Return the rules as text, such as `keep v*; drop *`."""
        shown = {
            name: " ".join(value) if isinstance(value, tuple) else value
            for name, value in self.values().items()
        }
        texts = [FIELDS[name].text.format(**shown) for name in self.list_given()]
        return "; ".join(filter(None, texts))


@functools.lru_cache(maxsize=1024)
def parse_tag_patterns(texts: tuple[str, ...]) -> tuple[TagPattern, ...]:
    """Parse the patterns. Raises PatternInvalidError."""
    return tuple(TagPattern.parse(text) for text in texts)


@functools.lru_cache(maxsize=1024)
def parse_age(text: str) -> int:
    """Return the microseconds of a duration. Raises ValueError."""
    return round(parse_duration(text) * 1_000_000)


def _normalize_duration(name: str, text: str) -> str:
    try:
        return format_duration(parse_duration(text))
    except ValueError as error:
        raise InputInvalidError(
            f"{name}: {text!r:.80} is not a duration; expected a form such as 200ms, 2s, 5m, 24h "
            "or 90d"
        ) from error


_DEFAULTS = asdict(Conditions())
