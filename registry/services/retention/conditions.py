"""The conditions of a retention rule, which this module alone lists.

The declaration of a field defines its input and output in the admin API, its JSON in the database,
its option of `moorage retention set` and its text in `moorage retention list`. A new field needs
its declaration here and its decision in `plan`.
"""

import functools
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, Self, get_type_hints

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from registry.errors import InputInvalidError
from registry.oci.tag_patterns import TagPattern
from registry.units import format_duration, parse_duration

_MOST = (1 << 31) - 1


class NewestBy(StrEnum):
    """The time by which tags are ordered."""

    PUSH = "push"
    PULL = "pull"


class Kind(Enum):
    """The kind of the values of a field."""

    TAG_PATTERNS = auto()
    COUNT = auto()
    DURATION = auto()
    NEWEST_BY = auto()


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


@dataclass(frozen=True, slots=True)
class Use:
    """How a field is used, apart from its type and its description.

    `text` shows the rule; it may contain the values of all fields by name. `drops` says that the
    field drops tags or manifests, so that it has no effect until it is enabled. The default of
    `option` is the name of the field.
    """

    kind: Kind
    text: str = ""
    drops: bool = False
    option: str = ""


class Conditions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions that keep or drop. None and an empty list mean that there is no such rule."""

    keep: Annotated[
        _TagPatterns,
        Meta(description="Keep tags that match, such as 'v*'."),
        Use(Kind.TAG_PATTERNS, "keep {keep}", option="--keep-tag"),
    ] = ()
    keep_newest: Annotated[
        _Count | None,
        Meta(description="Keep the newest N of the tags that no other rule keeps."),
        Use(Kind.COUNT, "keep the newest {keep_newest} by {by}"),
    ] = None
    by: Annotated[
        NewestBy,
        Meta(description="The event that makes a tag new: push (default) or pull."),
        Use(Kind.NEWEST_BY),
    ] = NewestBy.PUSH
    keep_per_minor: Annotated[
        _Count | None,
        Meta(description="Keep the last N versions of each minor version."),
        Use(Kind.COUNT, "keep the last {keep_per_minor} of each minor version"),
    ] = None
    drop: Annotated[
        _TagPatterns,
        Meta(description="Drop tags that match, such as '*'."),
        Use(Kind.TAG_PATTERNS, "drop {drop}", drops=True, option="--drop-tag"),
    ] = ()
    drop_not_pulled: Annotated[
        _Duration | None,
        Meta(description="Drop tags that were not used for this long."),
        Use(Kind.DURATION, "drop what was not pulled for {drop_not_pulled}", drops=True),
    ] = None
    drop_untagged: Annotated[
        _Duration | None,
        Meta(description="Drop manifests that were untagged for this long."),
        Use(Kind.DURATION, "drop what was untagged for {drop_untagged}", drops=True),
    ] = None

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
            if FIELDS[name].kind is Kind.TAG_PATTERNS:
                parse_tag_patterns(value)
            elif FIELDS[name].kind is Kind.DURATION:
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


@dataclass(frozen=True, slots=True)
class ConditionField:
    """A field of `Conditions`. `option` is that of the command line."""

    name: str
    option: str
    kind: Kind
    description: str
    text: str
    drops: bool


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


def _read_field(name: str, annotation: Any) -> ConditionField:
    metas = [each for each in annotation.__metadata__ if isinstance(each, Meta)]
    use = next(each for each in annotation.__metadata__ if isinstance(each, Use))
    return ConditionField(
        name,
        use.option or "--" + name.replace("_", "-"),
        use.kind,
        metas[-1].description or "",
        use.text,
        use.drops,
    )


FIELDS = {
    name: _read_field(name, annotation)
    for name, annotation in get_type_hints(Conditions, include_extras=True).items()
}
"""The fields of `Conditions` by name."""

_DEFAULTS = asdict(Conditions())
