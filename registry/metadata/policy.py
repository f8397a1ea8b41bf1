"""All that says who may do what and where quotas hold, read at once, and its last number."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata import grants, groups, quotas, robots, secrets, signing_keys, users
from registry.metadata.grants import GrantRow
from registry.metadata.robots import RobotRow
from registry.metadata.secrets import SecretRow
from registry.metadata.signing_keys import SigningKeyRow
from registry.metadata.tables import policy_head, removed_repositories
from registry.metadata.transaction import Transaction
from registry.metadata.users import UserRow
from registry.oci.names import RepositoryName

_r = removed_repositories.c


@dataclass(frozen=True, slots=True)
class Removal:
    """When a repository last went: the policy's number then, and the time in microseconds."""

    number: int
    at: int


@dataclass(frozen=True, slots=True)
class PolicyRows:
    """The rows as of `number`; of quotas, their patterns."""

    number: int
    users: list[UserRow]
    memberships: list[tuple[str, str]]
    robots: list[RobotRow]
    secrets: list[SecretRow]
    grants: list[GrantRow]
    keys: list[SigningKeyRow]
    removals: dict[RepositoryName, Removal]
    quotas: frozenset[str] = frozenset()


def read_number(tx: Transaction) -> int:
    """The number of the last change."""
    return int(tx.execute(sa.select(policy_head.c.number)).scalar_one())


def load(tx: Transaction) -> PolicyRows:
    """All rows, as they are together: read again where a change came between them."""
    while True:
        rows = _load(tx)
        if rows.number == read_number(tx):
            return rows


def _load(tx: Transaction) -> PolicyRows:
    return PolicyRows(
        number=read_number(tx),
        users=users.list_all(tx),
        memberships=groups.list_memberships(tx),
        robots=robots.list_all(tx),
        secrets=secrets.list_all(tx),
        grants=grants.list_all(tx),
        keys=signing_keys.list_all(tx),
        removals={
            name: Removal(number, at)
            for name, number, at in tx.execute(sa.select(_r.name, _r.number, _r.removed_at))
        },
        quotas=frozenset(quotas.list_all(tx)),
    )


def forget_removals(tx: Transaction, before: int) -> int:
    """Forget repositories that went before `before`, in microseconds; how many."""
    return tx.execute(sa.delete(removed_repositories).where(_r.removed_at < before)).rowcount
