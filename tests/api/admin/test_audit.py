"""Keys and the audit log through the admin API."""

import pytest

from tests.support.accounts import Login, bearer, get_token
from tests.support.admin import Admin

pytestmark = pytest.mark.anyio


async def test_keys_rotate_and_are_revoked(root: Admin) -> None:
    [first] = (await root.send("GET", "/keys"))["items"]
    assert first["state"] == "active"
    token = await get_token(root.http, root.login)
    second = await root.send("POST", "/keys/rotate", expect=201)
    states = {key["kid"]: key["state"] for key in (await root.send("GET", "/keys"))["items"]}
    assert states == {first["kid"]: "retired", second["kid"]: "active"}
    assert (await root.http.get("/v2/", headers=bearer(token))).status_code == 200
    await root.send("POST", f"/keys/{first['kid']}/revoke", expect=204)
    assert (await root.http.get("/v2/", headers=bearer(token))).status_code == 401
    assert "no signing key" in await root.refused("POST", "/keys/nothing/revoke")


async def test_a_registry_token_administers_nothing(root: Admin) -> None:
    token = await get_token(root.http, root.login)
    answer = await root.http.get("/api/v1/users", headers=bearer(token))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="moorage"'


async def test_the_audit_log_tells_who_did_what_from_where(root: Admin) -> None:
    await root.send("POST", "/users", {"name": "alice", "password": "a password"}, expect=201)
    await root.by(Login("alice", "wrong")).answer("GET", "/me")
    await root.send("POST", "/robots", {"name": "ci"}, expect=201)
    [added, failed, robot] = (await root.send("GET", "/audit"))["items"][-3:]
    assert (added["event"], added["target"], added["actor"]) == ("user.create", "alice", "root")
    assert added["detail"] == {"admin": False}
    assert added["address"] == "127.0.0.1"
    assert added["request_id"]
    assert (failed["event"], failed["target"]) == ("sign-in.fail", "alice")
    mine = (await root.send("GET", "/audit", actor="root", since=added["at"]))["items"]
    assert [event["event"] for event in mine] == ["user.create", "robot.create"]
    later = await root.send("GET", "/audit", since=robot["at"], n=1)
    assert (later["items"], later["next"]) == ([robot], None)
    page = await root.send("GET", "/audit", n=1)
    rest = await root.send("GET", "/audit", last=page["next"])
    assert rest["items"][-1] == robot


async def test_questions_to_the_audit_log_that_make_no_sense(root: Admin) -> None:
    for query in (
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": ""},
        {"last": "x"},
        {"last": str(1 << 63)},
        {"actor": "a\0b"},
        {"kind": "user.create"},
    ):
        assert (await root.refused("GET", "/audit", **query)).startswith("400 INVALID: "), query
    for since in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        await root.send("GET", "/audit", since=since)
