"""Which repositories the retention rules speak of."""

from registry.auth.patterns import Reach, RepositoryPattern, list_widest
from registry.metadata import repositories, retention_rules
from registry.metadata.transaction import Transaction
from registry.services.retention_rules import read_rule

_NAMES = 500
_RANGES = 100
"""Ranges of names in one query; with more of them it is cheaper to look at all names."""


def list_targets(tx: Transaction, asked: RepositoryPattern, last: str) -> list[str]:
    """Some of the repositories of the pattern that rules speak of, after the name `last`, in byte
    order; none: there are no more.
    """
    patterns = [read_rule(row).pattern for row in retention_rules.list_all(tx)]
    # Of two patterns one covers the other, or they have no repository in common.
    met = [asked if each.covers(asked) else each for each in patterns if _meet(each, asked)]
    targets = list_widest(met)
    ranges = [_span(target) for target in targets]
    if len(ranges) > _RANGES:
        ranges = [_span(RepositoryPattern("", Reach.ALL))]
    while ranges:
        names = repositories.list_names_within(tx, ranges, _NAMES, last)
        found = [name for name in names if any(target.matches(name) for target in targets)]
        if found or len(names) < _NAMES:
            return found
        last = names[-1]
    return []


def _meet(one: RepositoryPattern, other: RepositoryPattern) -> bool:
    return one.covers(other) or other.covers(one)


def _span(pattern: RepositoryPattern) -> tuple[str, str]:
    """The first name that the pattern may speak of, and the first one behind all of them."""
    if pattern.reach is Reach.EXACT:
        return pattern.prefix, f"{pattern.prefix}\x01"
    if not pattern.prefix:
        return "", "\x7f"
    return f"{pattern.prefix}/", f"{pattern.prefix}0"  # what comes after the slash
