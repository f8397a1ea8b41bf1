"""Settings for untagged manifests: a default, and rules for repository patterns.

Every command imports this module, so it must not import slow modules.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from msgspec import Struct

from registry.auth.policy.patterns import RepositoryPattern
from registry.errors import ConfigError, PatternInvalidError
from registry.units import SettingType

Untagged = Literal["keep", "delete"]


class UntaggedRule(Struct, frozen=True):
    """An entry of `[[gc.rules]]`: what happens to untagged manifests of matching repositories."""

    pattern: RepositoryPattern
    untagged: Untagged


class UntaggedRules(Struct, frozen=True):
    """Rules for untagged manifests. The first matching rule decides, otherwise the default."""

    default: Untagged = "keep"
    rules: tuple[UntaggedRule, ...] = ()

    def deletes_untagged(self, name: str) -> bool:
        """Return whether untagged manifests of the repository are deleted."""
        for rule in self.rules:
            if rule.pattern.matches(name):
                return rule.untagged == "delete"
        return self.default == "delete"

    @property
    def fingerprint(self) -> str:
        """A hash that changes when the rules change."""
        written = repr((self.default, show_rules(self.rules)))
        return hashlib.sha256(written.encode()).hexdigest()[:16]


def parse_rules(items: list[Any]) -> tuple[UntaggedRule, ...]:
    """Parse the tables of `[[gc.rules]]`. Raises ConfigError with the location."""
    return tuple(_parse_rule(item, f"[{index}]") for index, item in enumerate(items))


def show_rules(rules: tuple[UntaggedRule, ...]) -> list[dict[str, str]]:
    """Return the rules as tables."""
    return [{"pattern": str(rule.pattern), "untagged": rule.untagged} for rule in rules]


def _parse_rule(item: object, where: str) -> UntaggedRule:
    if not isinstance(item, Mapping) or set(item) != {"pattern", "untagged"}:
        raise ConfigError(f"{where}: expected a table with pattern and untagged")
    if not isinstance(item["pattern"], str):
        raise ConfigError(f"{where}.pattern: expected a string")
    if item["untagged"] not in get_args(Untagged):
        raise ConfigError(f'{where}.untagged: expected "keep" or "delete"')
    try:
        return UntaggedRule(RepositoryPattern.parse(item["pattern"]), item["untagged"])
    except PatternInvalidError as error:
        raise ConfigError(f"{where}.pattern: {error.message}") from error


Rules = Annotated[
    tuple[UntaggedRule, ...],
    SettingType("tables of pattern and untagged", list, parse_rules, show_rules, json=True),
]
