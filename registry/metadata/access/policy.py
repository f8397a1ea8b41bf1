"""The access policy and all quota patterns, loaded in one read, with their revision."""

from collections.abc import Mapping

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.access import grants, groups, robots, secrets, signing_keys, users
from registry.metadata.access.grants import GrantRow
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.secrets import SecretRow
from registry.metadata.access.signing_keys import SigningKeyRow
from registry.metadata.access.users import UserRow
from registry.metadata.engine.statements import Statement
from registry.metadata.engine.transaction import MOST_PARTS, Part, Transaction
from registry.metadata.quotas import quotas
from registry.metadata.tables import TEXT, policy_changes, policy_revision, removed_repositories
from registry.oci.names import RepositoryName

_r, _c = removed_repositories.c, policy_changes.c

_READ_REVISION = Statement(sa.select(policy_revision.c.revision))

KEPT = 10_000
"""Number of policy revisions whose changes are kept."""


class Removal(Struct, frozen=True):
    """The last removal of a repository: the policy revision and the time in microseconds."""

    revision: int
    at: int


class PolicyRows(Struct, frozen=True):
    """The rows of the policy at `revision`, and the patterns of all quotas."""

    revision: int
    users: list[UserRow]
    memberships: list[tuple[str, str]]
    robots: list[RobotRow]
    secrets: list[SecretRow]
    grants: list[GrantRow]
    keys: list[SigningKeyRow]
    removals: dict[RepositoryName, Removal]
    quotas: frozenset[str] = frozenset()


def read_revision(tx: Transaction) -> int:
    """Return the revision of the last policy change."""
    return int(tx.fetch_value(_READ_REVISION))


def load(tx: Transaction) -> PolicyRows:
    """Return all rows as of one revision. Reads again if a change came in between."""
    while True:
        rows = _load(tx)
        if rows.revision == read_revision(tx):
            return rows


def _load(tx: Transaction) -> PolicyRows:
    return PolicyRows(
        revision=read_revision(tx),
        users=users.list_all(tx),
        memberships=groups.list_memberships(tx),
        robots=robots.list_all(tx),
        secrets=secrets.list_all(tx),
        grants=grants.list_all(tx),
        keys=signing_keys.list_all(tx),
        removals={
            name: Removal(revision, at)
            for name, revision, at in tx.execute(
                sa.select(_r.name, _r.policy_revision, _r.removed_at)
            )
        },
        quotas=frozenset(quotas.list_all(tx)),
    )


class PolicyChanges(Struct, frozen=True):
    """The policy changes up to `revision`: the current rows under the changed keys.

    A changed key whose row was deleted has no row here. `keys` and `quotas` are None if unchanged.
    """

    revision: int
    changed: Mapping[Part, frozenset[str]]
    users: list[UserRow]
    memberships: list[tuple[str, str]]
    robots: list[RobotRow]
    secrets: list[SecretRow]
    grants: list[GrantRow]
    removals: dict[RepositoryName, Removal]
    keys: list[SigningKeyRow] | None
    quotas: frozenset[str] | None


def load_changes(tx: Transaction, since: int) -> PolicyChanges | None:
    """Return the changes after the revision `since`, read at one revision.

    Returns None if they are unknown, or so many that loading the whole policy is better.
    """
    while True:
        revision = read_revision(tx)
        changed = _read_parts(tx, since, revision)
        if changed is None:
            return None
        found = _load_changes(tx, revision, changed)
        if revision == read_revision(tx):
            return found


def _read_parts(tx: Transaction, since: int, revision: int) -> dict[Part, frozenset[str]] | None:
    query = sa.select(_c.revision, _c.part, _c.key).where(
        _c.revision > since, _c.revision <= revision
    )
    rows = list(tx.execute(query.limit(MOST_PARTS + 1)))
    # Old rows are deleted.
    if len(rows) > MOST_PARTS or len({row.revision for row in rows}) != revision - since:
        return None
    changed: dict[Part, set[str]] = {part: set() for part in Part}
    for row in rows:
        changed[Part(row.part)].add(row.key)
    if changed[Part.ALL]:
        return None
    return {part: frozenset(keys) for part, keys in changed.items()}


def _load_changes(
    tx: Transaction, revision: int, changed: dict[Part, frozenset[str]]
) -> PolicyChanges:
    removed = sa.select(_r.name, _r.policy_revision, _r.removed_at).where(
        sa.type_coerce(_r.name, TEXT).in_(changed[Part.REMOVAL])
    )
    ids = [int(key) for key in changed[Part.GRANT]]
    return PolicyChanges(
        revision=revision,
        changed=changed,
        users=users.list_named(tx, changed[Part.USER]) if changed[Part.USER] else [],
        memberships=(
            groups.list_memberships(tx, changed[Part.GROUPS]) if changed[Part.GROUPS] else []
        ),
        robots=robots.list_named(tx, changed[Part.ROBOT]) if changed[Part.ROBOT] else [],
        secrets=secrets.list_numbered(tx, changed[Part.SECRET]) if changed[Part.SECRET] else [],
        grants=grants.list_numbered(tx, ids) if ids else [],
        removals=(
            {name: Removal(revision, at) for name, revision, at in tx.execute(removed)}
            if changed[Part.REMOVAL]
            else {}
        ),
        keys=signing_keys.list_all(tx) if changed[Part.KEYS] else None,
        quotas=frozenset(quotas.list_all(tx)) if changed[Part.QUOTAS] else None,
    )


def forget_changes(tx: Transaction) -> int:
    """Delete all but the last `KEPT` changes, and return the number of deleted rows."""
    last = read_revision(tx) - KEPT
    return tx.execute(sa.delete(policy_changes).where(_c.revision <= last)).rowcount


def forget_removals(tx: Transaction, before: int) -> int:
    """Delete removals before `before`, in microseconds, and return their number."""
    return tx.execute(sa.delete(removed_repositories).where(_r.removed_at < before)).rowcount
