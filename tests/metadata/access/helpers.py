"""Helpers of the tests of this folder."""

from collections.abc import Callable
from typing import TypeVar

from registry.metadata.access import (
    failed_sign_ins,
    grants,
    groups,
    key_store,
    policy,
    refresh_tokens,
    robots,
    secrets,
    signing_keys,
    users,
)
from registry.metadata.access.groups import GroupRow
from registry.metadata.access.robots import RobotRow
from registry.metadata.access.users import UserRow
from registry.metadata.content import repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.rows import (
    NAME,
    add_blob,
)

T = TypeVar("T")


def get_user(tx: Transaction, name: str) -> UserRow:
    row = users.find(tx, name)
    assert row is not None
    return row


def get_group(tx: Transaction, name: str) -> GroupRow:
    row = groups.find(tx, name)
    assert row is not None
    return row


def get_robot(tx: Transaction, name: str) -> RobotRow:
    row = robots.find(tx, name)
    assert row is not None
    return row


def add_user(tx: Transaction, name: str, password: str | None = None) -> UserRow:
    assert users.insert(tx, name, password, admin=False)
    return get_user(tx, name)


def add_token(tx: Transaction, user: UserRow, secret_id: str, name: str = "laptop") -> bool:
    return secrets.insert_for_user(
        tx, user, secret_id=secret_id, name=name, hash_="hash", scopes=None, expires_at=None
    )


def add_refresh(tx: Transaction, token_id: str, credential: str) -> None:
    refresh_tokens.insert(
        tx, token_id, "hash", credential=credential, service="here", client="docker"
    )


async def write(database: Database, work: Callable[[Transaction], T]) -> T:
    return await database.write(work, actor="ann")


async def policy_number(database: Database) -> int:
    return await database.read(policy.read_revision)


CHANGES: dict[str, Callable[[Transaction], object]] = {
    "user added": lambda tx: users.insert(tx, "bob", None, admin=False),
    "password": lambda tx: users.set_password(tx, get_user(tx, "ann"), "hash"),
    "disabled": lambda tx: users.set_disabled(tx, get_user(tx, "ann"), disabled=True),
    "admin": lambda tx: users.set_admin(tx, get_user(tx, "ann"), admin=False),
    "user removed": lambda tx: users.delete(tx, get_user(tx, "ann")),
    "group added": lambda tx: groups.insert(tx, "ops"),
    "group removed": lambda tx: groups.delete(tx, get_group(tx, "devs")),
    "member added": lambda tx: groups.add_member(tx, get_group(tx, "devs"), add_user(tx, "bob")),
    "member removed": lambda tx: groups.remove_member(
        tx, get_group(tx, "devs"), get_user(tx, "ann")
    ),
    "robot added": lambda tx: robots.insert(tx, "cd", None),
    "robot expires": lambda tx: robots.set_expiry(tx, get_robot(tx, "ci"), 5),
    "robot removed": lambda tx: robots.delete(tx, get_robot(tx, "ci"), "robot+ci"),
    "token added": lambda tx: add_token(tx, get_user(tx, "ann"), "token"),
    "secret added": lambda tx: secrets.insert_for_robot(tx, get_robot(tx, "ci"), "new", "hash"),
    "secrets expire": lambda tx: secrets.expire_of_robot(tx, get_robot(tx, "ci"), 5),
    "grant put": lambda tx: grants.put(tx, "ann", "team/**", "push"),
    "grants removed": lambda tx: grants.delete_all_of(tx, "ann"),
    "key added": lambda tx: signing_keys.insert(tx, "next", "{}"),
    "key revoked": lambda tx: signing_keys.revoke(tx, "kid"),
    "repository removed": lambda tx: repositories.delete(tx, repositories.ensure(tx, NAME)),
}
NO_CHANGES: dict[str, Callable[[Transaction], object]] = {
    "a look": policy.load,
    "a rehash": lambda tx: users.rehash(tx, "ann", "old", "new"),
    "a use": lambda tx: secrets.set_used(tx, "id"),
    "a refresh token": lambda tx: add_refresh(tx, "next", "secret:id"),
    "a failure": lambda tx: failed_sign_ins.insert(tx, "127.0.0.1", "hash"),
    "a private key": lambda tx: key_store.insert(tx, "next", b"sealed"),
    "a repository born": lambda tx: add_blob(tx, repositories.ensure(tx, NAME), "layer"),
    "no such token": lambda tx: secrets.delete_of_user(tx, get_user(tx, "ann"), "none"),
    "old keys": lambda tx: signing_keys.delete_retired(tx, 0),
}
