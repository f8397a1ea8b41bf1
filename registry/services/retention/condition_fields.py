"""The fields of the conditions of a retention rule, with their use, apart from their types.

The help of the command line imports this module, so it imports nothing slow.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class NewestBy(StrEnum):
    """The time by which tags are ordered."""

    PUSH = "push"
    PULL = "pull"


class FieldKind(Enum):
    """The kind of the values of a field."""

    TAG_PATTERNS = auto()
    COUNT = auto()
    DURATION = auto()
    NEWEST_BY = auto()


@dataclass(frozen=True, slots=True)
class ConditionField:
    """A field of `Conditions`, and how it is used.

    `text` shows the rule; it may contain the values of all fields by name. `drops` says that the
    field drops tags or manifests, so that it has no effect until it is enabled. `given_option` is
    the option of the command line, if it does not have the name of the field.
    """

    name: str
    kind: FieldKind
    description: str
    text: str = ""
    drops: bool = False
    given_option: str = ""

    @property
    def option(self) -> str:
        """The option of `moorage retention set`."""
        return self.given_option or "--" + self.name.replace("_", "-")


_ALL = (
    ConditionField(
        "keep",
        FieldKind.TAG_PATTERNS,
        "Keep tags that match, such as 'v*'.",
        "keep {keep}",
        given_option="--keep-tag",
    ),
    ConditionField(
        "keep_newest",
        FieldKind.COUNT,
        "Keep the newest N of the tags that no other rule keeps.",
        "keep the newest {keep_newest} by {by}",
    ),
    ConditionField(
        "by",
        FieldKind.NEWEST_BY,
        "The event that makes a tag new: push (default) or pull.",
    ),
    ConditionField(
        "keep_per_minor",
        FieldKind.COUNT,
        "Keep the last N versions of each minor version.",
        "keep the last {keep_per_minor} of each minor version",
    ),
    ConditionField(
        "drop",
        FieldKind.TAG_PATTERNS,
        "Drop tags that match, such as '*'.",
        "drop {drop}",
        drops=True,
        given_option="--drop-tag",
    ),
    ConditionField(
        "drop_not_pulled",
        FieldKind.DURATION,
        "Drop tags that were not used for this long.",
        "drop what was not pulled for {drop_not_pulled}",
        drops=True,
    ),
    ConditionField(
        "drop_untagged",
        FieldKind.DURATION,
        "Drop manifests that were untagged for this long.",
        "drop what was untagged for {drop_untagged}",
        drops=True,
    ),
)

FIELDS = {field.name: field for field in _ALL}
"""The fields of `Conditions` by name."""
