"""Protection from web pages: DNS rebinding, cross-site writes, and allowed origins.

Clients in tests/clients send `Host: localhost:5000` or `127.0.0.1:5000` and no `Origin`.
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.conftest import SERVED, Api, Started
from tests.support.accounts import AUTH, Accounts, Login, signed
from tests.support.kit import codes

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

UPLOADS = "/v2/app/blobs/uploads/"
PAGE = "https://ui.example.org"
NONE = {"auth.mode": "none", "http.listen": "0.0.0.0:5000"}
LOOPBACK = [
    "localhost:5000",
    "LOCALHOST",
    "app.localhost:5000",
    "127.0.0.1:5000",
    "127.8.8.8",
    "[::1]:1",
]
FOREIGN = [
    "evil.example",
    "evil.example:5000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a,b",
    "é",
]


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def open_api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api() as started:
        yield started


async def ask(api: Api, method: str, path: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
    return await api.http.request(method, path, headers=named)  # type: ignore[arg-type]


async def list_answered(api: Api, hosts: list[str]) -> list[str]:
    """Return the hosts that the registry accepts. It must refuse reads and writes for others."""
    answered = []
    for host in hosts:
        read, write = (
            await ask(api, "GET", "/v2/", host=host),
            await ask(api, "POST", UPLOADS, host=host),
        )
        if (read.status_code, write.status_code) == (200, 202):
            answered.append(host)
        else:
            for refused in (read, write):
                if SERVED and refused.status_code == 400:
                    continue  # the server rejects this as a host
                assert (refused.status_code, codes(refused)) == (403, ["DENIED"])
                assert "external_url" in refused.text
    return answered


async def test_an_open_registry_answers_to_names_of_this_machine(open_api: Api) -> None:
    others = [*FOREIGN, "registry:5000", "192.0.2.1:5000", "registry.example.org"]
    assert await list_answered(open_api, [*LOOPBACK, *others]) == LOOPBACK


async def test_an_open_registry_answers_to_its_external_url(start_api: Started) -> None:
    async with start_api({"http.external_url": "https://registry.example.org"}) as api:
        own = ["registry.example.org", "REGISTRY.example.org:443", "localhost"]
        assert await list_answered(api, [*own, *FOREIGN]) == own


async def test_a_registry_for_a_network_answers_to_names_of_networks(start_api: Started) -> None:
    """A web page of an attacker cannot have an IP address or a name without a dot as its host."""
    async with start_api(NONE) as api:
        own = [*LOOPBACK, "registry:5000", "192.0.2.1:5000", "[2001:db8::1]"]
        assert await list_answered(api, [*own, *FOREIGN]) == own


async def test_who_signs_in_may_use_any_name(start_api: Started) -> None:
    async with start_api(AUTH) as api:
        alice = await Accounts.of(api.opened).user("alice", admin=True)
        answer = await ask(api, "GET", "/v2/", host="any.example", **alice.basic)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8080"},
        {"origin": "http://localhost.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://localhost", "sec_fetch_site": "cross-site"},
        {"origin": "é"},
    ],
)
async def test_a_write_of_another_sites_page_is_refused(
    start_api: Started, headers: dict[str, str]
) -> None:
    for settings in ({}, AUTH):
        async with start_api(settings) as api:
            more = dict(headers)
            if settings:
                more |= (await Accounts.of(api.opened).user("alice", admin=True)).basic
            digest = "sha256:" + "0" * 64
            for method, path in (
                ("POST", UPLOADS),
                (
                    "PUT",
                    f"/v2/app/blobs/uploads/{'0' * 8}-0000-0000-0000-{'0' * 12}?digest={digest}",
                ),
                ("PUT", "/v2/app/manifests/latest"),
                ("DELETE", "/v2/app/manifests/latest"),
                ("DELETE", f"/v2/app/blobs/{digest}"),
                ("POST", "/token"),
                *((("POST", "/api/v1/groups"), ("GET", "/api/v1/me")) if settings else ()),
            ):
                refused = await ask(api, method, path, content_type="text/plain", **more)
                assert (refused.status_code, codes(refused)) == (403, ["DENIED"]), path
                assert "cors_origins" in refused.text
            # Reads are allowed, because the page cannot see the response.
            assert (await ask(api, "GET", "/v2/", **more)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"origin": "http://localhost", "sec_fetch_site": "same-origin"},
        # A proxy has terminated TLS without a setting that says so.
        {"origin": "https://localhost", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ],
)
async def test_a_write_of_its_own_page_is_taken(open_api: Api, headers: dict[str, str]) -> None:
    answer = await ask(open_api, "POST", UPLOADS, host="localhost", **headers)
    assert answer.status_code == 202


async def test_a_page_that_is_listed_may_use_the_registry(start_api: Started) -> None:
    async with start_api({**AUTH, "http.cors_origins": PAGE}) as api:
        alice = await Accounts.of(api.opened).user("alice", admin=True)
        asked = {"origin": PAGE, "access_control_request_method": "PUT"}
        preflight = await ask(api, "OPTIONS", UPLOADS, **asked)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"].split(", ")
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"].split(", ")
        sent = {"origin": PAGE, "sec_fetch_site": "cross-site", **alice.basic}
        for method, path, status in (
            ("POST", UPLOADS, 202),
            ("GET", "/api/v1/me", 200),
            ("GET", "/v2/app/tags/list", 404),
            ("GET", "/token", 200),
        ):
            answer = await ask(api, method, path, **sent)
            assert answer.status_code == status, path
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert "Origin" in answer.headers["Vary"]
            assert "Docker-Content-Digest" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_page_that_is_not_listed_may_not(start_api: Started) -> None:
    async with start_api({"http.cors_origins": PAGE}) as api:
        for origin in (
            "https://evil.example",
            f"{PAGE}:444",
            "https://ui.example.org.evil.example",
        ):
            asked = {"origin": origin, "access_control_request_method": "POST"}
            preflight = await ask(api, "OPTIONS", UPLOADS, **asked)
            assert preflight.status_code == 405
            written = await ask(api, "POST", UPLOADS, origin=origin)
            assert written.status_code == 403
            for answer in (preflight, written):
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert "Origin" in answer.headers["Vary"]


async def test_all_pages_may_use_it_without_a_browsers_passwords(start_api: Started) -> None:
    async with start_api({"http.cors_origins": "*"}) as api:
        answer = await ask(api, "POST", UPLOADS, origin=PAGE, sec_fetch_site="cross-site")
        assert answer.status_code == 202
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_without_the_setting_nothing_is_said(open_api: Api) -> None:
    answer = await ask(
        open_api, "OPTIONS", UPLOADS, origin=PAGE, access_control_request_method="PUT"
    )
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


# A path prefix


PREFIXED = {"http.external_url": "https://registry.example.org/a/registry"}
BELOW = "/a/registry"


@pytest.mark.parametrize("sent", ["", BELOW])
async def test_a_registry_below_a_path_names_it(start_api: Started, sent: str) -> None:
    """The proxy strips the path prefix or forwards it."""
    async with start_api(PREFIXED) as api:
        started = await api.http.post(f"{sent}{UPLOADS}")
        location = started.headers["Location"]
        assert location.startswith(f"{BELOW}{UPLOADS}")
        here = location if sent else location.removeprefix(BELOW)
        assert (await api.http.patch(here, content=b"abc")).headers["Location"] == location
        off = await api.http.patch(here, content=b"abc", headers={"Content-Range": "7-9"})
        assert (off.status_code, off.headers["Location"]) == (416, location)
        await api.push_image("team/app", "v1")
        await api.push_image("team/app", "v2")
        page = await api.http.get(f"{sent}/v2/team/app/tags/list?n=1")
        assert page.headers["Link"] == f'<{BELOW}/v2/team/app/tags/list?n=1&last=v1>; rel="next"'
        assert page.headers["Docker-Distribution-API-Version"] == "registry/2.0"
        assert (await api.http.get(f"{sent}/")).status_code == 200
        for path in (f"{BELOW}/../v2/", f"{BELOW}//v2/", f"{BELOW}%2Fv2/", f"{BELOW}x/v2/"):
            assert (await api.http.get(path)).status_code in {400, 404}, path


async def test_the_realm_of_tokens_has_the_path(start_api: Started) -> None:
    async with start_api({**AUTH, **PREFIXED}) as api:
        challenge = (await api.http.get(f"{BELOW}/v2/")).headers["WWW-Authenticate"]
        assert 'realm="https://registry.example.org/a/registry/token"' in challenge
        alice: Login = await Accounts.of(api.opened).user("alice", admin=True)
        http = signed(api.http, alice.basic).http
        assert (await http.get(f"{BELOW}/token")).status_code == 200
        listed = await http.get(f"{BELOW}/api/v1/users", params={"n": 1})
        assert listed.status_code == 200
        document = (await http.get(f"{BELOW}/api/v1/openapi.json")).json()
        assert document["servers"] == [{"url": f"{BELOW}/"}]
        own = {"Origin": "https://registry.example.org", "Sec-Fetch-Site": "same-origin"}
        assert (await http.post(f"{BELOW}{UPLOADS}", headers=own)).status_code == 202
