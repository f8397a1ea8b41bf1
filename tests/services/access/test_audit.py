"""The audit log has every change, and no secret is stored."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry import clock
from registry.auth.policy.grants import Bound
from registry.auth.policy.subjects import Subject
from registry.errors import (
    RegistryError,
)
from registry.metadata import tables
from registry.services.access.keys import KeyState
from tests.metadata.rows import rows
from tests.services.access.access_services import (
    HERE,
    OTHER,
    PASSWORD,
    PULL,
    ROOT,
    TEAM,
    House,
    all_at_once,
    dump,
    wanted,
)

pytestmark = pytest.mark.anyio


Change = Callable[[House], Awaitable[object]]


async def _revoke(house: House) -> None:
    retired = [key.kid for key in await house.keys.list_all() if key.state is KeyState.RETIRED]
    await house.keys.revoke(retired[0], ROOT)


async def _rotate(house: House) -> None:
    await house.keys.rotate(ROOT)


# Each change and its audit entry, in an order in which each change has an effect.
CHANGES: dict[str, tuple[Change, str, str, dict[str, Any]]] = {
    "add a user": (
        lambda h: h.users.add("cy", PASSWORD, ROOT, admin=True),
        *("user.create", "cy", {"admin": True}),
    ),
    "set a password": (
        lambda h: h.users.set_password("ann", OTHER, ROOT),
        *("user.update", "ann", {"password": True}),
    ),
    "disable": (
        lambda h: h.users.change("ann", ROOT, disabled=True),
        *("user.update", "ann", {"disabled": True}),
    ),
    "two changes": (
        lambda h: h.users.change("ann", ROOT, disabled=False, admin=True),
        *("user.update", "ann", {"disabled": False, "admin": True}),
    ),
    "add a group": (lambda h: h.groups.add("ops", ROOT), "group.create", "ops", {}),
    "add a member": (
        lambda h: h.groups.add_member("devs", "bob", ROOT),
        *("group.update", "devs", {"added": "bob"}),
    ),
    "remove a member": (
        lambda h: h.groups.remove_member("devs", "ann", ROOT),
        *("group.update", "devs", {"removed": "ann"}),
    ),
    "add a robot": (lambda h: h.robots.add("cd", 60, ROOT), "robot.create", "cd", {}),
    "rotate a robot": (
        lambda h: h.robots.rotate("ci", 60, ROOT),
        *("robot.rotate", "ci", {"overlap": 60}),
    ),
    "remove a robot": (lambda h: h.robots.remove("ci", ROOT), "robot.delete", "ci", {}),
    "add a token": (
        lambda h: h.access_tokens.add("ann", "ci", ROOT, bounds=[Bound(TEAM, PULL)]),
        *("access-token.create", "ann", {"name": "ci", "scopes": '[["team/*", ["pull"]]]'}),
    ),
    "revoke a token": (
        lambda h: h.access_tokens.revoke("ann", "laptop", ROOT),
        *("access-token.revoke", "ann", {"name": "laptop"}),
    ),
    "add a grant": (
        lambda h: h.grant("group:devs", "push"),
        *("grant.create", "group:devs", {"pattern": "team/*", "actions": "pull,push"}),
    ),
    "remove a grant": (
        lambda h: h.grants.remove(Subject.parse("ann"), TEAM, ROOT),
        *("grant.delete", "ann", {"pattern": "team/*", "actions": "pull"}),
    ),
    "rotate keys": (_rotate, "key.rotate", "", {}),
    "remove a group": (lambda h: h.groups.remove("devs", ROOT), "group.delete", "devs", {}),
    "remove a user": (lambda h: h.users.remove("ann", ROOT), "user.delete", "ann", {}),
    "revoke a key": (_revoke, "key.revoke", "", {}),
}


async def test_every_change_is_one_row_of_the_audit_log(filled: House) -> None:
    await filled.keys.rotate(ROOT)
    for name, (change, kind, target, detail) in CHANGES.items():
        last = (await filled.audit_log())[-1].number
        began = clock.now_us()
        await change(filled)
        new = await filled.audit_log(last)
        assert len(new) == 1, name
        (row,) = new
        assert (row.actor, row.address, row.request_id) == ("root", "192.0.2.9", "request-1")
        assert row.kind == kind
        assert not target or row.target == target
        assert detail.items() <= json.loads(row.detail).items()
        assert began <= row.at <= clock.now_us()


async def test_the_audit_log_know_tokens_and_failures(filled: House) -> None:
    last = (await filled.audit_log())[-1].number
    caller = await filled.sign_in("ann", PASSWORD)
    issued = await filled.tokens.issue(caller, wanted(offline=True), HERE)
    for name in ("ann", "a password where a name belongs"):
        assert not await filled.lets_in(name, OTHER)
    token, known, unknown = await filled.audit_log(last)
    assert (token.actor, token.kind, token.target) == (
        "ann",
        "token.issue",
        "repository:team/app:pull",
    )
    assert json.loads(token.detail) == {
        "id": issued.access.id,
        "client": "docker",
        "refresh": True,
    }
    assert (known.kind, known.target) == ("sign-in.fail", "ann")
    assert (unknown.kind, unknown.target) == ("sign-in.fail", "(unknown)")
    for row in (token, known, unknown):
        assert (row.address, row.request_id) == ("192.0.2.10", "request-2")


async def test_no_secret_is_kept_anywhere(filled: House) -> None:
    await filled.users.set_password("bob", OTHER, ROOT)
    made = [
        (await filled.robots.add("cd", None, ROOT)).secret,
        (await filled.robots.rotate("cd", 60, ROOT)).secret,
        (await filled.access_tokens.add("ann", "ci", ROOT, lifetime=60)).secret,
    ]
    caller = await filled.sign_in("ann", made[2])
    granted = await filled.tokens.issue(caller, wanted(offline=True), HERE)
    assert granted.refresh is not None
    for name, password in (("ann", "wrong password"), ("wrong password", PASSWORD)):
        assert not await filled.lets_in(name, password)
    await filled.keys.rotate(ROOT)
    kid = (await filled.keys.list_all())[-1].kid
    private = (await filled.keyring.get_private(kid)).private_bytes_raw()
    secrets = [PASSWORD, OTHER, "wrong password", granted.access.token, private.hex()]
    secrets += [text.rpartition("_")[2] for text in [*made, granted.refresh]]
    secrets += [text.rpartition("_")[0] + "_" for text in made]
    found = await dump(filled.database)
    assert len(found["audit_log"]) > 100
    for table, text in found.items():
        for secret in secrets:
            assert secret not in text, table
    hashes = [row.hash for row in await rows(filled.database, tables.secrets)]
    hashes += [row.password_hash for row in await rows(filled.database, tables.users)]
    for kept in filter(None, hashes):
        assert kept not in found["audit_log"]


async def test_an_error_leaves_no_trace(filled: House) -> None:
    before = await dump(filled.database)
    works: list[Awaitable[object]] = [
        filled.users.add("ann", OTHER, ROOT),
        filled.groups.add("devs", ROOT),
        filled.robots.add("ci", None, ROOT),
        filled.access_tokens.add("ann", "laptop", ROOT),
        filled.grant("anonymous", "push"),
        filled.grant("nobody", "pull"),
        filled.keys.revoke("none", ROOT),
    ]
    errors = await all_at_once(works)
    assert len(errors) == len(works)
    assert all(issubclass(error, RegistryError) for error in errors)
    assert await dump(filled.database) == before
