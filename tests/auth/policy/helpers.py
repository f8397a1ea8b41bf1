"""Helpers of the tests of this folder."""

from typing import Any

from msgspec.structs import replace

from registry.auth.policy.actions import (
    GrantAction,
)
from registry.auth.policy.policy import Account, Policy
from registry.metadata.access.grants import GrantRow
from registry.metadata.access.policy import PolicyRows
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.secrets import SecretRow
from registry.metadata.access.users import UserRow
from registry.oci.names import RepositoryName

NOW = 1_000_000
PULL = frozenset({GrantAction.PULL})
APP = RepositoryName("team/app")
USERS, GROUPS, ROBOTS = ["ann", "bob"], ["devs", "ops"], ["ci", "ann"]
NAMES = ["ann", "ann/app", "ann/app/x", "ann-b/app", "team", "team/app", "team/app/x", "bob/a/b/c"]
PATTERNS = [*NAMES, "*", "**", "ann/*", "ann/**", "team/*", "team/**", "team/app/**", "bob/a/**"]
UNREADABLE = [
    *('[["team/*", []]]', '[["tea*", ["pull"]]]', '[["a", ["x"]]]', "", "no JSON", "null", "0"),
    *('{"team/*": ["pull"]}', '[["a"]]', '[["a", "pull"]]', '[["a", [["pull"]]]]', "[" * 100_000),
]
SUBJECTS = ["ann", "bob", "group:devs", "group:ops", "robot:ci", "robot:ann", "authenticated"]


def user(name: str, *, admin: bool = False, disabled: bool = False) -> UserRow:
    return UserRow(1, name, f"gen-{name}", admin, disabled, 0)


def robot(name: str, expires_at: int | None = None) -> RobotRow:
    return RobotRow(1, name, f"gen-{name}", 0, expires_at)


def secret(secret_id: str, **changed: Any) -> SecretRow:
    row = SecretRow(secret_id, None, None, "laptop", "hash", None, 0, None, None)
    return replace(row, **changed)


def grant(subject: str, pattern: str, *actions: str, number: int = 1) -> GrantRow:
    return GrantRow(number, subject, pattern, ",".join(actions), 0)


def make(*, personal: bool = False, **rows: Any) -> Policy:
    empty: dict[str, Any] = {
        "revision": 7,
        "users": [user("ann"), user("bob")],
        "memberships": [],
        "robots": [robot("ci")],
        "secrets": [],
        "grants": [],
        "keys": [],
        "removals": {},
    }
    return Policy(PolicyRows(**empty | rows), personal_namespaces=personal)


def account(policy: Policy, credential: str) -> Account:
    found = policy.find_account(credential, NOW)
    assert found is not None
    return found


def signed_in(policy: Policy, name: str) -> Account:
    return account(policy, f"user:{name}:gen-{name}")
