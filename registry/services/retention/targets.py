"""Repositories to which retention rules apply."""

from registry.auth.policy.patterns import RepositoryPattern, minimize
from registry.metadata.content import repositories
from registry.metadata.engine.transaction import Transaction
from registry.metadata.retention import rules
from registry.services.content.repositories import read_region

_NAMES = 500


def list_targets(
    tx: Transaction, asked: RepositoryPattern, last: str, *, enabled: bool
) -> list[str]:
    """Return a batch of repositories that match both `asked` and a rule.

    The batch starts after the name `last`, in byte order. It is empty at the end. With `enabled`,
    only enabled rules count.
    """
    rows = [row for row in rules.list_all(tx) if row.enabled or not enabled]
    met = [RepositoryPattern.parse(row.pattern).intersect(asked) for row in rows]
    regions = [read_region(each) for each in minimize(each for each in met if each is not None)]
    return repositories.list_names(tx, _NAMES, last, regions) if regions else []
