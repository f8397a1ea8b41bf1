"""Authentication and input validation of the admin API."""

import json

import httpx
import pytest

from registry.operations.table import BASE, OPERATIONS
from tests.api.conftest import Api, Started
from tests.support.accounts import ANONYMOUS, AUTH, OPERATOR, Accounts, Login
from tests.support.admin import Admin
from tests.support.kit import codes

pytestmark = pytest.mark.anyio

CHALLENGE = 'Basic realm="moorage"'


@pytest.mark.parametrize("mode", ["", "none"])
async def test_an_open_registry_says_how_to_close_it(start_api: Started, mode: str) -> None:
    async with start_api({**AUTH, "auth.mode": mode}) as api:
        if mode:
            await Accounts.of(api.opened).user("root", admin=True)
        for operation in OPERATIONS:
            path = operation.path.format_map(dict.fromkeys(operation.path_fields, "x"))
            said = await Admin(api.http, ANONYMOUS).refused(operation.method, path)
            assert said.startswith("403 DENIED: ")
            assert "moorage user add NAME --admin" in said


async def test_the_first_user_closes_it_at_once(start_api: Started) -> None:
    async with start_api({**AUTH, "auth.mode": ""}) as api:
        anybody = Admin(api.http, ANONYMOUS)
        assert (await anybody.answer("GET", "/users")).status_code == 403
        await Accounts.of(api.opened).user("root")
        assert (await anybody.answer("GET", "/users")).status_code == 401


async def test_who_does_not_sign_in_is_told_how(api: Api, root: Admin) -> None:
    accounts = Accounts.of(api.opened)
    await accounts.user("shut-out", "a good password")
    await api.opened.access.users.change("shut-out", OPERATOR, disabled=True)
    for login in (
        ANONYMOUS,
        Login("root", "wrong"),
        Login("nobody", "wrong"),
        Login("shut-out", "a good password"),
        Login("root", ""),
    ):
        answer = await root.by(login).answer("GET", "/users")
        assert (answer.status_code, codes(answer)) == (401, ["UNAUTHORIZED"])
        assert answer.headers["WWW-Authenticate"] == CHALLENGE


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !", "Basic cm9vdA==", "Bearer", "Bearer x", "Digest x", "Basic /w=="]
)
async def test_credentials_that_cannot_be_read(root: Admin, header: str) -> None:
    answer = await root.http.get(f"{BASE}/users", headers={"Authorization": header})
    assert (answer.status_code, codes(answer)) == (401, ["UNAUTHORIZED"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "{base}"}, 201),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "{base}.evil.example"}, 403),
        ({"Origin": "{base}", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_pages_of_other_sites_are_kept_out(
    root: Admin, headers: dict[str, str], status: int
) -> None:
    base = str(root.http.base_url).rstrip("/")
    sent = {name: value.replace("{base}", base) for name, value in headers.items()}
    answer = await root.http.post(
        f"{BASE}/groups", json={"name": "devs"}, headers=root.login.basic | sent
    )
    assert answer.status_code == status


async def _post(root: Admin, content: bytes, kind: str | None) -> httpx.Response:
    headers = root.login.basic | ({"Content-Type": kind} if kind else {})
    return await root.http.post(f"{BASE}/groups", content=content, headers=headers)


async def test_bodies_are_json_and_say_so(root: Admin) -> None:
    body = b'{"name": "devs"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", None):
        refused = await _post(root, body, kind)
        assert (refused.status_code, codes(refused)) == (415, ["INVALID"]), kind
    assert (await _post(root, body, "Application/JSON; charset=utf-8")).status_code == 201
    # A web page can send a form without a CORS preflight request.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    rotated = await root.http.post(f"{BASE}/keys/rotate", headers=root.login.basic | form)
    assert rotated.status_code == 415


async def test_bodies_that_make_no_sense(root: Admin) -> None:
    deep = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body in (
        b"",
        b"null",
        b"[]",
        b'"devs"',
        b"{",
        b'{"name": 7}',
        b'{"name": null}',
        b'{"name": "\\ud800"}',
        b'{"name": "a\\u0000b"}',
        b'{"name": "\xff"}',
        b'{"name": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"name": "devs"}',
        b'{"name": 1e400}',
        b'{"name": NaN}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": "devs", "name2": 1}',
        '{"name": "de\u03c5s\u202e"}'.encode(),
        deep,
    ):
        refused = await _post(root, body, "application/json")
        assert (refused.status_code, codes(refused)) == (400, ["INVALID"]), body[:40]
    large = await _post(root, b'{"name": "' + b"x" * (1 << 20) + b'"}', "application/json")
    assert (large.status_code, codes(large)) == (413, ["SIZE_INVALID"])
    assert (await root.send("GET", "/groups"))["items"] == []


async def test_the_path_says_once_what_is_meant(root: Admin) -> None:
    said = await root.refused("PATCH", "/users/root", {"name": "other", "admin": False})
    assert said == "400 INVALID: name is in the path already; leave it out here"
    said = await root.refused("POST", "/users", {"name": "alice"}, password="x")  # noqa: S106
    assert (
        said
        == "400 INVALID: this operation takes a JSON body, not a query; move the fields to the body"
    )
    said = await root.refused("DELETE", "/users/root", name="other")
    assert said == "400 INVALID: name is in the path already; leave it out here"


async def test_other_methods_and_paths(root: Admin) -> None:
    answer = await root.answer("PUT", "/users")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert (await root.answer("GET", "/nothing")).status_code == 404
    assert (await root.answer("GET", "/users/")).status_code in {400, 404}
    assert (await root.answer("GET", "/users/a%00b")).status_code == 400


async def test_requests_are_limited(start_api: Started) -> None:
    async with start_api({**AUTH, "limits.requests_per_second": "3"}) as api:
        root = Admin(api.http, await Accounts.of(api.opened).user("root", admin=True))
        answers = [await root.answer("GET", "/me") for _ in range(6)]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert int(answers[-1].headers["Retry-After"]) > 0


async def test_no_answer_holds_what_is_stored(api: Api, root: Admin) -> None:
    """No response has a hash, and only the response that creates a secret has the secret."""
    await root.send("POST", "/users", {"name": "alice", "password": "her password"}, expect=201)
    made = [
        await root.send("POST", "/robots", {"name": "ci"}, expect=201),
        await root.send("POST", "/users/alice/tokens", {"name": "laptop"}, expect=201),
    ]
    policy = await api.opened.access.policies.get()
    kept = ["her password", "argon2", root.login.secret]
    for secret in (str(each["secret"]) for each in made):
        row = policy.find_secret(secret.split("_")[1])
        assert row is not None
        kept += [secret.split("_")[2], row.hash, row.id]
    for path in ("/me", "/users", "/users/alice", "/users/alice/tokens", "/robots", "/robots/ci"):
        text = json.dumps(await root.send("GET", path))
        assert [secret for secret in kept if secret in text] == []
    text = json.dumps(await root.send("GET", "/audit"))
    assert [secret for secret in kept if secret in text] == []
