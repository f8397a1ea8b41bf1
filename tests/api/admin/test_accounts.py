"""Users, groups and robots through the admin API."""

import bcrypt
import pytest

from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts, Login
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio

LONG = "correct horse battery"


async def test_a_user_from_first_to_last(root: Admin) -> None:
    added = await root.send("POST", "/users", {"name": "alice", "password": LONG}, expect=201)
    assert added.pop("created_at").endswith("Z")
    assert added == {"name": "alice", "admin": False, "disabled": False}
    alice = root.by(Login("alice", LONG))
    assert await alice.send("GET", "/me") == {
        "name": "alice",
        "admin": False,
        "has_scopes": False,
        "groups": [],
    }
    changed = await root.send("PATCH", "/users/alice", {"admin": True})
    assert changed["admin"]
    assert (await alice.send("GET", "/me"))["admin"]
    await root.send("PATCH", "/users/alice", {"disabled": True})
    assert (await alice.answer("GET", "/me")).status_code == 401
    assert (await root.send("GET", "/users/alice"))["disabled"]
    await root.send("PATCH", "/users/alice", {"disabled": False})
    await alice.send("GET", "/me")
    await root.send("DELETE", "/users/alice", expect=204)
    assert (await alice.answer("GET", "/me")).status_code == 401
    assert await root.refused("GET", "/users/alice") == "404 NOT_FOUND: no user 'alice'"


async def test_what_a_user_cannot_be(root: Admin) -> None:
    for body in (
        {"name": "@lice"},
        {"name": "operator"},
        {"name": ""},
        {"name": "a" * 255},
        {"name": "alice", "password": "short"},
        {"name": "alice", "password": "with a \0 in it"},
        {"name": "alice", "passphrase": LONG},
        {"name": "alice", "admin": "true"},
        {"name": "alice", "created_at": 0},
        {},
    ):
        assert (await root.refused("POST", "/users", body)).startswith("400 INVALID: "), body
    said = await root.refused("POST", "/users", {"name": "root"})
    assert said == "409 CONFLICT: the user 'root' already exists"
    assert "last user" in await root.refused("DELETE", "/users/root")
    assert [user["name"] for user in (await root.send("GET", "/users"))["items"]] == ["root"]


async def test_her_own_password_takes_the_current_one(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    old = await accounts.user("alice", LONG)
    token = await accounts.token("alice")
    alice, path = root.by(old), "/users/alice/password"
    new = {"password": "another password"}
    wrong = "403 DENIED: the current password is wrong; send it as `current`"
    for current in ({}, {"current": "wrong"}, {"current": token.secret}, {"current": ""}):
        assert await alice.refused("PUT", path, new | current) == wrong
        # A token is refused too: with a stolen token, nobody may take over the account.
        assert await root.by(token).refused("PUT", path, new | current) == wrong
    await alice.send("PUT", path, new | {"current": LONG}, expect=204)
    assert (await alice.answer("GET", "/me")).status_code == 401
    await root.by(Login("alice", "another password")).send("GET", "/me")
    await root.by(token).send("GET", "/me")  # personal access tokens stay valid
    # Admins need the current password only for their own account.
    await root.send("PUT", path, {"password": LONG}, expect=204)
    await alice.send("GET", "/me")
    assert await root.refused("PUT", "/users/root/password", new) == wrong


async def test_guessing_the_current_password_is_limited(start_api: Started) -> None:
    async with start_api({**AUTH, "limits.failed_sign_ins": "3"}) as api:
        alice = Admin(api.http, await Accounts.of(api.opened).user("alice", LONG))
        guess = {"password": LONG, "current": "wrong"}
        for _ in range(3):
            assert (await alice.answer("PUT", "/users/alice/password", guess)).status_code == 403
        limited = await alice.answer("PUT", "/users/alice/password", guess)
        assert limited.status_code == 429
        assert int(limited.headers["Retry-After"]) > 0


async def test_an_htpasswd_file(root: Admin) -> None:
    hashed = bcrypt.hashpw(LONG.encode(), bcrypt.gensalt(4)).decode()
    text = f"# people\nalice:{hashed}\n\nroot:{hashed}\n"
    imported = await root.send("POST", "/htpasswd", {"htpasswd": text})
    assert imported == {"added": ["alice"], "existing": ["root"], "invalid": []}
    await root.by(Login("alice", LONG)).send("GET", "/me")
    bad = await root.refused("POST", "/htpasswd", {"htpasswd": f"bob:{hashed}\ncarol:secret\n"})
    assert bad.startswith("400 INVALID: 1 of the lines")
    assert "line 2: expected NAME:BCRYPT" in bad
    assert "secret" not in bad
    assert len((await root.send("GET", "/users"))["items"]) == 2
    text = f"Bob@example.org:{hashed}\ncarol:secret\n"
    imported = await root.send("POST", "/htpasswd", {"htpasswd": text, "skip_invalid": True})
    assert imported["added"] == ["Bob@example.org"]
    assert len(imported["invalid"]) == 1
    bob = root.by(Login("Bob@example.org", LONG))
    assert (await bob.send("GET", "/me"))["name"] == "Bob@example.org"
    for path in ("/users/Bob%40example.org", "/users/Bob@example.org"):
        assert (await root.send("GET", path))["name"] == "Bob@example.org"


async def test_a_group_from_first_to_last(api: Api, root: Admin) -> None:
    alice = root.by(await Accounts.of(api.opened).user("alice"))
    added = await root.send("POST", "/groups", {"name": "devs"}, expect=201)
    assert added["members"] == []
    joined = await root.send("PUT", "/groups/devs/members/alice")
    assert joined["members"] == ["alice"]
    assert await root.send("PUT", "/groups/devs/members/alice") == joined
    assert (await alice.send("GET", "/me"))["groups"] == ["devs"]
    assert (await root.send("GET", "/groups"))["items"] == [joined]
    assert (await root.send("DELETE", "/groups/devs/members/alice"))["members"] == []
    assert "not in the group" in await root.refused("DELETE", "/groups/devs/members/alice")
    assert "no user" in await root.refused("PUT", "/groups/devs/members/nobody")
    await root.send("DELETE", "/groups/devs", expect=204)
    assert "no group" in await root.refused("GET", "/groups/devs")


async def test_a_robot_from_first_to_last(root: Admin) -> None:
    made = await root.send("POST", "/robots", {"name": "ci", "expires": "90d"}, expect=201)
    assert list(made) == ["name", "username", "secret", "expires_at"]
    assert (made["username"], made["expires_at"][-1]) == ("robot+ci", "Z")
    robot = root.by(Login("robot+ci", made["secret"]))
    assert (await robot.send("GET", "/me"))["name"] == "robot+ci"
    shown = await root.send("GET", "/robots/ci")
    assert shown["last_used_at"].endswith("Z")
    assert "secret" not in shown
    again = await root.send("POST", "/robots/ci/rotate", {"overlap": "1h"})
    assert again["expires_at"] == made["expires_at"]
    await robot.send("GET", "/me")
    last = await root.send("POST", "/robots/ci/rotate", {"expires": "1d"})
    assert last["expires_at"] < made["expires_at"]
    assert (await robot.answer("GET", "/me")).status_code == 401
    between = root.by(Login("robot+ci", again["secret"]))
    assert (await between.answer("GET", "/me")).status_code == 401
    await root.by(Login("robot+ci", last["secret"])).send("GET", "/me")
    await root.send("DELETE", "/robots/ci", expect=204)
    assert (await root.send("GET", "/robots"))["items"] == []


async def test_durations_that_are_none(root: Admin) -> None:
    await root.send("POST", "/robots", {"name": "ci"}, expect=201)
    for life in ("", "90", "1w", "-1d", "0d", "1.5h", "99999999999d", "٣d", "1_0d", " 1d"):
        for path in ("/robots", "/robots/ci/rotate", "/users/root/tokens"):
            body = {"expires": life} if "rotate" in path else {"name": "x", "expires": life}
            assert (await root.refused("POST", path, body)).startswith("400 INVALID: "), life


async def test_lists_come_in_pages(root: Admin) -> None:
    names = [f"user-{number}" for number in range(5)] + ["root"]
    for name in names[:-1]:
        await root.send("POST", "/users", {"name": name}, expect=201)
    seen: list[str] = []
    path, query = "/users", {"n": "2"}
    while True:
        answer = await root.answer("GET", path, **query)
        page = answer.json()
        seen += [user["name"] for user in page["items"]]
        assert len(page["items"]) <= 2
        if page["next"] is None:
            assert "Link" not in answer.headers
            break
        assert answer.links["next"]["url"] == f"/api/v1/users?n=2&last={page['next']}"
        query = {"n": "2", "last": page["next"]}
    assert seen == sorted(names)
    assert len((await root.send("GET", "/users", n=10**12))["items"]) == 6
    for n in ("0", "-1", "x", "1_0", "٣", "", "9" * 5000):
        assert (await root.refused("GET", "/users", n=n)).startswith("400 INVALID: n: ")
