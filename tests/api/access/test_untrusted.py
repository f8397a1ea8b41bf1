"""Fuzzing: no request of a client, with any bytes, causes a server error.

The fuzzer calls the whole application in this process, so that each parser of untrusted text is
tested where it is used: paths, queries, headers, forms, JSON, tokens, cursors, ranges. It also runs
on PostgreSQL, which refuses texts that SQLite accepts. MOORAGE_SOAK=100 takes minutes.
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from registry.operations.operation import Operation
from registry.operations.table import BASE, OPERATIONS
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts, Login, bearer, get_token
from tests.support.kit import codes

SOAK = int(os.environ.get("MOORAGE_SOAK", "1"))
PROFILE = settings(
    max_examples=150 * SOAK,
    derandomize=SOAK == 1,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ROOT = Login("root", "the password of root")
DIGEST = "sha256:" + "0" * 64
UUID = "00000000-0000-0000-0000-000000000000"

NASTY_TEXTS = [
    *("", "\0", "a\0b", "é", "\ud800", "\u202e", "\x1b[2J", "\x7f", "%", "%00", "%zz", "+", "&=;"),
    *("0", "-1", "1e999", "NaN", "٣", "²", "1_000", "9" * 18, "9" * 19, "9" * 5000, " 1", "true"),
    *("*", "**", "a/**", "../..", "a" * 300, "a" * 5000, "group:", "robot:\0", "user:a", "a:b:c"),
    *("-1d", "9" * 19 + "d", "1d", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"),
    *("2026-02-30T00:00:00Z", "Thu, 99 Foo 2026 25:61:61 GMT", "sha256:", DIGEST, UUID),
    *("bytes=0-", "bytes=-0", "bytes=9-1", "bytes=" + "0-1," * 2000, "bytes 0-1/*", "a" * 20_000),
    *("repository:a:pull", "repository:" + ":" * 50, "registry:catalog:*", "moorage_0_0"),
    *('"', '"*"', "W/", 'W/"\xff"', "[::1", "[::1%eth0]", "1.2.3.4:99999999999999999999"),
    *("for=a;for=b", 'for="[::1]:x";proto=\xe9', "/" * 50, "{}", "[]", "null"),
]
NASTY_VALUES: list[Any] = [
    *NASTY_TEXTS,
    *(None, True, 0, -1, 1 << 63, 1 << 64, 10**400, 1.5, [], {}, [[]], {"a": {}}, ["\0"], ["pull"]),
]
DEEP = "[" * 100_000
HEADERS = [
    *("Authorization", "Content-Type", "Content-Length", "Content-Range", "Range", "If-Range"),
    *("If-Match", "If-None-Match", "If-Modified-Since", "Accept", "Cookie", "Origin", "Host"),
    *("Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
    *("X-Forwarded-Prefix", "X-Request-Id", "User-Agent", "Expect", "Moorage-Override", "Date"),
]
PARAMETERS = [
    *("n", "last", "digest", "mount", "from", "tag", "artifactType", "digest-algorithm", "ns"),
    *("scope", "service", "account", "client_id", "offline_token", "since", "actor", "subject"),
]
FIELDS = [
    *("grant_type", "username", "password", "refresh_token", "subject_token", "service", "scope"),
    *("subject_token_type", "client_id", "access_type"),
]
GRANTS = ["password", "refresh_token", "urn:ietf:params:oauth:grant-type:token-exchange"]
FORM = "application/x-www-form-urlencoded"
EXCHANGED = "urn:ietf:params:oauth:token-type:id_token"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "É"]
PATHS = [
    *("/", "/token", "/healthz", "/readyz", "/metrics", "/.well-known/jwks.json", "/v2", "/v2/"),
    *("/v2/_catalog", "/v2/{}/tags/list", "/v2/{}/manifests/{}", "/v2/{}/blobs/{}"),
    *(
        "/v2/{}/referrers/{}",
        "/v2/{}/blobs/uploads/",
        "/v2/{}/blobs/uploads/{}",
        "{}",
        "/api/v1/{}",
    ),
]

texts = st.sampled_from(NASTY_TEXTS) | st.text(max_size=30)
raw_texts = texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40)
tokens = st.builds(
    lambda header, claims, end: ".".join([encode(header), encode(claims), end]),
    st.sampled_from(["{}", '{"alg":"EdDSA"}', '{"alg":"none","typ":"JWT"}', DEEP, "9" * 5000])
    | texts.map(lambda text: json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": text})),
    st.sampled_from(["{}", DEEP, '{"iss":"a"}']) | texts,
    st.sampled_from(["", "AAAA", "A" * 86, "é"]),
)


def encode(text: str) -> str:
    raw = base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass"))
    return raw.decode().rstrip("=")[:6000]


authorizations = (
    st.just(ROOT.basic["Authorization"].encode())
    | raw_texts.map(lambda raw: b"Basic " + raw)
    | raw_texts.map(lambda raw: b"Bearer " + raw)
    | tokens.map(lambda token: f"Bearer {token}".encode("utf-8", "surrogatepass"))
    | raw_texts
)
given_headers = st.lists(st.tuples(st.sampled_from(HEADERS), raw_texts), max_size=4)


def fill(data: st.DataObject, template: str) -> bytes:
    """Return a path with arbitrary text, escaped or not, in place of its parameters."""
    first, *others = template.split("{}")
    path = first.encode()
    for part in others:
        value = data.draw(
            st.sampled_from([b"team/app", DIGEST.encode(), UUID.encode()]) | raw_texts
        )
        escaped = b"".join(b"%%%02X" % byte for byte in value)
        path += data.draw(st.sampled_from([value, escaped])) + part.encode()
    # Remove bytes that a request line cannot contain.
    return b"".join(path.split()).replace(b"?", b"") or b"/"


def write_pairs(pairs: list[tuple[str, bytes]]) -> bytes:
    return b"&".join(
        name.encode() + b"=" + b"".join(b"%%%02X" % byte for byte in value) for name, value in pairs
    )


@dataclass(frozen=True)
class Sent:
    """A request in which the test chooses every byte."""

    method: str
    path: bytes
    query: bytes = b""
    headers: Sequence[tuple[str, bytes]] = ()
    body: bytes = b""

    async def to(self, app: ASGIApp) -> int:
        """Send the request and return the status, or 0 if there was no response."""
        named = [(name.lower().encode(), value) for name, value in self.headers]
        if b"host" not in dict(named):
            named.append((b"host", b"localhost:5000"))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "headers": named,
            "scheme": "http",
            "path": self.path.decode("latin-1"),
            "raw_path": self.path,
            "query_string": self.query,
            "server": ("127.0.0.1", 5000),
            "client": ("127.0.0.1", 123),
            "root_path": "",
        }
        inbox: list[Message] = [
            {"type": "http.disconnect"},
            {"type": "http.request", "body": self.body, "more_body": False},
        ]
        statuses = []

        async def receive() -> Message:
            return inbox.pop() if len(inbox) > 1 else inbox[0]

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(int(message["status"]))

        await app(scope, receive, note)
        return sum(statuses)


async def send(api: Api, sent: Sent) -> int:
    transport = api.http._transport
    assert isinstance(transport, httpx.ASGITransport)
    return await sent.to(transport.app)


@pytest.fixture
def driver() -> str:
    return "memory"


SETTINGS = AUTH | {"limits.failed_sign_ins": "0", "http.trusted_proxies": "127.0.0.1"}


@pytest.fixture
async def api(start_api: Started) -> AsyncIterator[Api]:
    async with start_api(SETTINGS) as started:
        await Accounts.of(started.opened).user(ROOT.name, ROOT.secret, admin=True)
        yield started


Try = Callable[[Sent], None]


@pytest.fixture
def attempt(start_api: Started) -> Iterator[Try]:
    """Return a function that sends a request and fails on a server error.

    The fixture runs the event loop, because Hypothesis calls plain functions.
    """
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        api = runner.run(stack.enter_async_context(start_api(SETTINGS)))
        root = Accounts.of(api.opened).user(ROOT.name, ROOT.secret, admin=True)
        runner.run(root)

        def run(sent: Sent) -> None:
            status = runner.run(send(api, sent))
            assert status < 500, (status, sent)

        yield run
        runner.run(stack.aclose())


# Regression: header bytes above 127 are not credentials; they caused a traceback and 500.


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("scheme", [b"Basic", b"basic", b"Bearer", b"Other"])
@pytest.mark.parametrize("value", [b"\xe9", b"\xc3\xa9", b"YTpi\x80", b"\xff" * 100])
@pytest.mark.parametrize("path", [b"/v2/", b"/v2/a/b/manifests/x", b"/token", b"/api/v1/me"])
@pytest.mark.anyio
async def test_authorization_of_any_bytes_is_401(
    api: Api, scheme: bytes, value: bytes, path: bytes
) -> None:
    headers = [("Authorization", scheme + b" " + value)]
    assert await send(api, Sent("GET", path, headers=headers)) == 401


@pytest.mark.soak
@pytest.mark.timeout(300 + 60 * SOAK)
@PROFILE
@given(st.data())
def test_no_request_is_a_server_error(attempt: Try, data: st.DataObject) -> None:
    draw = data.draw
    path = fill(data, draw(st.sampled_from(PATHS)))
    pairs = draw(st.lists(st.tuples(st.sampled_from(PARAMETERS), raw_texts), max_size=3))
    query = draw(st.sampled_from([write_pairs(pairs)]) | raw_texts)
    headers = [*draw(given_headers), ("Authorization", draw(authorizations))]
    body = draw(raw_texts | st.sampled_from([DEEP.encode(), b"{" * 50_000, b"9" * 5000]))
    attempt(Sent(draw(st.sampled_from(METHODS)), path, query, headers, body))


@pytest.mark.soak
@pytest.mark.timeout(300 + 60 * SOAK)
@PROFILE
@given(st.data())
def test_no_manifest_or_chunk_is_a_server_error(attempt: Try, data: st.DataObject) -> None:
    draw = data.draw
    keys = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"]
    parts = ["mediaType", "digest", "size", "data", "urls", "platform", "artifactType"]
    values = st.sampled_from(NASTY_VALUES)
    parted = st.dictionaries(st.sampled_from(parts), values, max_size=4)
    manifest = st.dictionaries(
        st.sampled_from(keys), values | parted | st.lists(parted, max_size=2), max_size=5
    )
    body = json.dumps(draw(manifest)).encode()
    kind = draw(st.sampled_from([b"", b"application/vnd.oci.image.manifest.v1+json"]) | raw_texts)
    headers = [("Authorization", ROOT.basic["Authorization"].encode()), ("Content-Type", kind)]
    attempt(Sent("PUT", b"/v2/team/app/manifests/a", b"", headers, body))


@pytest.mark.soak
@pytest.mark.timeout(300 + 60 * SOAK)
@PROFILE
@given(st.data())
def test_no_form_is_a_server_error(attempt: Try, data: st.DataObject) -> None:
    draw = data.draw
    pairs = draw(st.lists(st.tuples(st.sampled_from(FIELDS), raw_texts), max_size=5))
    kinds = st.sampled_from([grant.encode() for grant in GRANTS])
    pairs += [("grant_type", draw(kinds)), ("subject_token_type", EXCHANGED.encode())]
    pairs.append(("subject_token", draw(tokens).encode("utf-8", "surrogatepass")))
    body = draw(st.just(write_pairs(pairs)) | raw_texts)
    headers = [("Content-Type", FORM.encode()), *draw(given_headers)]
    attempt(Sent("POST", b"/token", b"", headers, body))


def choose_values(data: st.DataObject, operation: Operation) -> dict[str, Any]:
    return {
        name: data.draw(st.sampled_from(NASTY_VALUES))
        for name in operation.request_type.__struct_fields__
        if data.draw(st.booleans())
    }


@pytest.mark.soak
@pytest.mark.timeout(300 + 60 * SOAK)
@PROFILE
@given(st.data())
def test_no_admin_request_is_a_server_error(attempt: Try, data: st.DataObject) -> None:
    draw = data.draw
    operation = draw(st.sampled_from(OPERATIONS))
    values = choose_values(data, operation)
    path = BASE + operation.path
    for name in operation.path_fields:
        path = path.replace(f"{{{name}}}", "{}")
        values.pop(name, None)
    raw_path = fill(data, path)
    headers = [("Authorization", ROOT.basic["Authorization"].encode())]
    query, body = b"", b""
    if operation.has_body:
        headers.append(("Content-Type", b"application/json"))
        body = json.dumps(values).encode()
        body = draw(st.sampled_from([body, body, body, DEEP.encode(), body[:-1] + b',"a":"\xff"}']))
    else:
        written = [
            (name, str(value).encode("utf-8", "surrogatepass")) for name, value in values.items()
        ]
        query = write_pairs(written)
    attempt(Sent(operation.method, raw_path, query, headers, body))


# Control: the fuzzer finds an error that is put back into a parser.


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.anyio
async def test_a_fault_is_a_server_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnicodeError("a reader that raises what nobody expects")

    monkeypatch.setattr(base64, "b64decode", fail)
    monkeypatch.setattr("registry.http.authorization._UNREADABLE", KeyError)
    headers = [("Authorization", b"Basic YTpi")]
    assert await send(api, Sent("GET", b"/v2/", headers=headers)) == 500


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.anyio
async def test_a_token_of_any_bytes_is_an_invalid_token(api: Api) -> None:
    token = await get_token(api.http, ROOT)
    answer = await api.http.get("/v2/", headers=bearer(token))
    assert answer.status_code == 200
    assert jwt.get_unverified_header(token)["typ"] == "JWT"
    for broken in (f"{token}\u00e9", token[:-2], token.replace(".", "..")):
        headers = {"Authorization": f"Bearer {broken}".encode("latin-1")}
        refused = await api.http.get("/v2/", headers=headers)  # type: ignore[arg-type]
        assert refused.status_code == 401
        assert codes(refused) == ["UNAUTHORIZED"]
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
