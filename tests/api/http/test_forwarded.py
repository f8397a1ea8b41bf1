"""Forwarded headers: only trusted proxies can set the client address and the host."""

from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from registry import access_log
from registry.http.forwarded import ForwardedHeadersMiddleware
from tests.api.conftest import SERVED, Started

pytestmark = pytest.mark.anyio

TRUSTED = "10.0.0.0/8,192.0.2.1,fd00::/8"
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


@pytest.fixture
def driver() -> str:
    return "memory"


async def place(
    *headers: tuple[str, str],
    peer: str | None = PROXY,
    trusted: str = TRUSTED,
    external_url: str = "",
    **more: Any,
) -> Scope:
    """Return the ASGI scope that the application receives from the middleware."""
    given: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        given.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 4711),
        "server": ("127.0.0.1", 5000),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
        **more,
    }
    before = dict(scope)
    networks = tuple(ip_network(text) for text in trusted.split(",") if text)
    await ForwardedHeadersMiddleware(app, networks, external_url)(scope, receive, send)
    assert scope == before  # the scope of the server must not change
    return given[0]


async def client(*headers: tuple[str, str], **more: Any) -> str:
    return str((await place(*headers, **more))["client"][0])


async def base(*headers: tuple[str, str], **more: Any) -> str:
    return str((await place(*headers, **more))["moorage.base"])


LIES = [
    ("X-Forwarded-For", "198.51.100.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("Forwarded", "for=198.51.100.1;proto=https;host=evil.example"),
]


# Trusted proxies


@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::1", "testclient", ""])
@pytest.mark.parametrize("lie", [[lie] for lie in LIES] + [LIES])
async def test_others_are_not_believed(peer: str, lie: list[tuple[str, str]]) -> None:
    scope = await place(("Host", "registry.example"), *lie, peer=peer)
    assert scope["client"] == (peer, 4711)
    assert scope["scheme"] == "http"
    assert scope["moorage.base"] == "http://registry.example"


async def test_without_trusted_proxies_nobody_is_believed() -> None:
    scope = await place(("Host", "registry.example"), *LIES, peer="127.0.0.1", trusted="")
    assert scope["client"] == ("127.0.0.1", 4711)
    assert scope["moorage.base"] == "http://registry.example"


@pytest.mark.parametrize("peer", [PROXY, "192.0.2.1", "fd00::1", "::ffff:10.0.0.1", "fd00::1%eth0"])
async def test_a_trusted_proxy_is_believed(peer: str) -> None:
    said = (
        ("Host", "backend:5000"),
        ("X-Forwarded-For", CLIENT),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "registry.example"),
    )
    scope = await place(*said, peer=peer)
    assert scope["client"] == (CLIENT, 0)
    assert scope["scheme"] == "https"
    assert scope["moorage.base"] == "https://registry.example"


async def test_forwarded_says_the_same() -> None:
    said = f'For="{CLIENT}:47011"; Proto=HTTPS; Host="registry.example:8443";by=_hidden'
    scope = await place(("Host", "backend"), ("Forwarded", said))
    assert scope["client"] == (CLIENT, 0)
    assert scope["scheme"] == "https"
    assert scope["moorage.base"] == "https://registry.example:8443"


async def test_forwarded_counts_only_alone() -> None:
    """A proxy that sets X-Forwarded-For passes a Forwarded header of the client on."""
    written = ("X-Forwarded-For", CLIENT)
    scope = await place(("Host", "registry.example"), written, LIES[-1])
    assert scope["client"] == (CLIENT, 0)
    assert scope["moorage.base"] == "http://registry.example"


async def test_what_a_proxy_does_not_say_is_as_it_is() -> None:
    scope = await place(("Host", "registry.example"))
    assert scope["client"] == (PROXY, 4711)
    assert scope["moorage.base"] == "http://registry.example"
    scope = await place(("Host", "registry.example"), scheme="https")
    assert scope["moorage.base"] == "https://registry.example"


# Client address with several hops


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        (CLIENT, CLIENT),
        (f"198.51.100.1, {CLIENT}", CLIENT),
        (f"198.51.100.1,{CLIENT},10.9.9.9", CLIENT),
        (f"10.1.1.1, {CLIENT}, 10.9.9.9, 192.0.2.1", CLIENT),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (f"{CLIENT}:4711", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.9", CLIENT),
        (f"{CLIENT},,\t, ", CLIENT),
        # Entries to the left of an unreadable one are ignored.
        ("198.51.100.1, unknown", PROXY),
        ("198.51.100.1, unknown, 10.9.9.9", "10.9.9.9"),
        ("198.51.100.1, _hidden, 10.9.9.9", "10.9.9.9"),
        ("198.51.100.1, fe80::1%eth0", PROXY),
        ("198.51.100.1, 203.0.113.07", PROXY),
        ("198.51.100.1, 203.0.113.7:x", PROXY),
        ("198.51.100.1, [203.0.113.7", PROXY),
        ("198.51.100.1, ²03.0.113.7", PROXY),
        ("", PROXY),
    ],
)
async def test_the_client_is_the_rightmost_that_is_no_proxy(chain: str, found: str) -> None:
    assert await client(("X-Forwarded-For", chain)) == found
    lines = [("X-Forwarded-For", item) for item in chain.split(",")]
    assert await client(*lines) == found


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'for="{CLIENT}"', CLIENT),
        (f"for=198.51.100.1, for={CLIENT}", CLIENT),
        (f"for={CLIENT}, for=10.9.9.9;proto=http", CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        (f"for={CLIENT};;by=10.0.0.1;", CLIENT),
        ("for=198.51.100.1, for=unknown", PROXY),
        ("for=198.51.100.1, for=_x, for=10.9.9.9", "10.9.9.9"),
        ("for=198.51.100.1, by=10.0.0.1", PROXY),
        (f"for=198.51.100.1;for={CLIENT}", PROXY),
        (f'for="x, for={CLIENT}', CLIENT),
        (f'for=198.51.100.1, for="{CLIENT}', PROXY),
        (f'ext="a, for=198.51.100.1", for={CLIENT}', CLIENT),
        ('ext="a, for=198.51.100.1, b", for=10.9.9.9', "10.9.9.9"),
        ('ext="\\", for=198.51.100.1", for=10.9.9.9', "10.9.9.9"),
        ("for", PROXY),
        ("=", PROXY),
        (f"{CLIENT}", PROXY),
    ],
)
async def test_the_same_for_forwarded(chain: str, found: str) -> None:
    assert await client(("Forwarded", chain)) == found


async def test_the_scheme_and_host_are_those_of_the_outermost_trusted_hop() -> None:
    said = f"for=198.51.100.1;proto=ftp;host=evil, for={CLIENT};proto=https;host=a, for=10.2.2.2"
    assert await base(("Forwarded", said + ";proto=http;host=b")) == "https://a"
    assert await base(("Forwarded", said)) == "https://a"
    listed = (("X-Forwarded-Proto", "ftp, https, http"), ("X-Forwarded-Host", "evil, a, b"))
    hops = ("X-Forwarded-For", f"198.51.100.1, {CLIENT}, 10.2.2.2")
    assert await base(hops, *listed) == "https://a"
    once = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a"))
    assert await base(hops, *once) == "https://a"


async def test_a_client_cannot_put_a_scheme_or_host_before_those_of_a_proxy() -> None:
    said = (("X-Forwarded-For", f"198.51.100.1, {CLIENT}"), ("X-Forwarded-Host", "evil, a"),
            ("X-Forwarded-Proto", "https, http"))  # fmt: skip
    assert await base(*said) == "http://a"
    assert await base(*said[1:]) == "http://a"


# Base URL


async def test_the_external_url_is_the_base_whatever_is_said() -> None:
    said = (("Host", "evil.example"), *LIES)
    for peer in (PROXY, CLIENT):
        found = await base(*said, peer=peer, external_url="https://registry.example")
        assert found == "https://registry.example"


@pytest.mark.parametrize(
    "host",
    ["registry", "registry.example", "registry.example:5000", "192.0.2.9:1", "[2001:db8::1]",
     "[2001:db8::1]:65535", "my_registry", "REGISTRY.example", "xn--bcher-kva.example"],
)  # fmt: skip
async def test_the_host_of_the_request_is_the_base(host: str) -> None:
    assert await base(("Host", host)) == f"http://{host}"
    assert await base(("Host", host), peer=None) == f"http://{host}"
    assert await base(("Host", "backend"), ("X-Forwarded-Host", host)) == f"http://{host}"
    assert await base(("Host", "backend"), ("Forwarded", f'host="{host}"')) == f"http://{host}"


BAD_HOSTS = [
    *("", " ", 'evil"', "evil'", "evil\r\nX: y", "evil\n", "evil\0", "evil/", "evil/path", "a b"),
    *("user@evil", "evil?", "evil#", "evil\\", "é", "evil:", "evil:x"),
    *("evil:65536", "evil:123456", "evil:80:80", "::1", "[::1", "[::1]x", "[1.2.3.4]", "[:::]"),
    *("[::1%25eth0]", "[1.2.3.4:80]", "a" * 256, "<evil>", "evil%0d%0a"),
]


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_what_is_no_host_is_as_if_it_were_not_there(host: str) -> None:
    assert await base(("Host", host)) == "http://127.0.0.1:5000"
    assert await base(("Host", "registry"), ("X-Forwarded-Host", host)) == "http://registry"
    assert await base(("Host", "registry"), ("Forwarded", f"host={host}")) == "http://registry"
    assert await base(("Host", "registry"), ("Forwarded", f'host="{host}"')) == "http://registry"


async def test_two_hosts_are_none() -> None:
    for host in ("a,b", "a;b", "a b"):
        assert await base(("Host", host)) == "http://127.0.0.1:5000"
    assert await base(("Host", "a"), ("Host", "b")) == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("server", "host"),
    [
        (("127.0.0.1", 5000), "127.0.0.1:5000"),
        (("::1", 443), "[::1]:443"),
        (("registry", 80), "registry:80"),
        (("/run/moorage.sock", None), "localhost"),
        (None, "localhost"),
    ],
)
async def test_without_a_host_it_is_where_the_server_listens(
    server: tuple[str, int | None] | None, host: str
) -> None:
    assert await base(server=server) == f"http://{host}"


@pytest.mark.parametrize("scheme", ["", "ftp", "https://", "http http", 'https"', "wss", "httpſ"])  # noqa: RUF001
async def test_a_scheme_that_is_none_is_as_if_it_were_not_there(scheme: str) -> None:
    said = scheme.encode("utf-8").decode("latin-1")
    assert await base(("Host", "a"), ("X-Forwarded-Proto", said)) == "http://a"
    assert await base(("Host", "a"), ("Forwarded", f"proto={said}")) == "http://a"


async def test_a_peer_without_address_is_not_believed() -> None:
    scope = await place(("Host", "registry.example"), *LIES, peer=None)
    assert scope["client"] is None
    assert scope["moorage.base"] == "http://registry.example"


# Arbitrary headers

NAMES = st.sampled_from(
    ["host", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
)
PIECES = st.sampled_from(
    ["for=", "host=", "proto=", "https", "by=", ";", ",", " ", '"', "\\", "=", "unknown", "_x", "[",
     "]", ":", "%", "10.0.0.1", "203.0.113.7", "2001:db8::1", ":80", "evil", "\r\n", "\0", "@", "/"]
)  # fmt: skip
VALUES = st.lists(PIECES, max_size=12).map("".join) | st.text(
    st.characters(max_codepoint=255), max_size=30
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
@example([("forwarded", "for=" * 20_000)])
@example([("x-forwarded-for", "1," * 20_000)])
@example([("host", "a" * 60_000)])
async def test_nothing_said_does_any_harm(headers: list[tuple[str, str]]) -> None:
    scope = await place(*headers)
    found = scope["moorage.base"]
    assert set(found) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]/"
    )
    parts = urlsplit(found)
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert parts.path == ""
    assert scope["client"][0] == PROXY or scope["client"][1] == 0
    ip_network(scope["client"][0])


# In the application


@pytest.mark.skipif(SERVED, reason="the client's address is another")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", CLIENT), ("10.0.0.1", "127.0.0.1")])
async def test_the_access_log_names_the_client(
    start_api: Started, monkeypatch: pytest.MonkeyPatch, trusted: str, seen: str
) -> None:
    written: list[access_log.AccessLine] = []
    monkeypatch.setattr("registry.access_log.write", written.append)
    async with start_api({"http.trusted_proxies": trusted}) as api:
        for path in ("/v2/", "/v2//", "/nothing"):
            await api.http.get(path, headers={"X-Forwarded-For": CLIENT})
    assert [line.caller.client for line in written] == [seen] * 3
