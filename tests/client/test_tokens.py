"""Tokens, and the places that get credentials. Every server records what it is sent."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from registry.client import authorization as module
from registry.client import transport
from registry.client.credentials import from_settings
from registry.client.upstream import Upstream
from registry.errors import (
    UpstreamAddressError,
    UpstreamCredentialsError,
    UpstreamDeniedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
)
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.client.conftest import REPOSITORY, SHORT, TAG, calling
from tests.support.servers.certificates import Authority
from tests.support.servers.hostile import hostile, say
from tests.support.servers.upstream import Reply
from tests.support.servers.upstream import Upstream as Server
from tests.support.servers.upstream import upstream as running

pytestmark = [pytest.mark.anyio, pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])]

STRANGE = "127.0.0.2"
PASSWORD = "secret-word"  # noqa: S105 - of a test
SIGNED_IN = from_settings("ann", PASSWORD)
BASIC = f"Basic {base64.b64encode(f'ann:{PASSWORD}'.encode()).decode()}"
SCOPE = f"repository:{REPOSITORY}:pull"
BLOB = b"a layer"
DIGEST = Digest.of(BLOB)
PATH = f"/v2/{REPOSITORY}/manifests/{TAG}"
BLOB_PATH = f"/v2/{REPOSITORY}/blobs/{DIGEST}"
MANIFEST = Reply(b"{}", 200, {"content-type": OCI_MANIFEST})


class TokenServer:
    """The replies of a registry and its token server, which count tokens."""

    def __init__(self, registry: Server, tokens: Server, host: str = "127.0.0.1") -> None:
        self.registry = registry
        self.tokens = tokens
        self.realm = tokens.url("/token", host)
        registry.replies[PATH] = self.challenge()

    def challenge(self, **more: str) -> Reply:
        asked = {"realm": self.realm, "service": "s", **more}
        value = ",".join(f'{name}="{text}"' for name, text in asked.items() if text)
        return Reply(b"", 401, {"www-authenticate": f"Bearer {value}"})

    def issue(self, **made: object) -> None:
        self.tokens.put("/token", {"token": "made", **made})


@pytest.fixture
def strange() -> Iterator[Server]:
    with running(STRANGE) as server:
        yield server


def accept_tokens(server: Server, *tokens: str) -> None:
    """Let the server answer with the manifest if a request has one of the tokens."""
    refused = server.replies[PATH]

    class Guarded(dict[str, Reply]):
        def get(self, key: str, default: Reply | None = None) -> Reply:  # type: ignore[override]
            _, headers = server.requests[-1]
            is_good = headers.get("authorization") in {f"Bearer {each}" for each in tokens}
            if key == PATH:
                return MANIFEST if is_good else refused
            return dict.get(self, key, default) or Reply(b"no", 404)

    server.replies = Guarded(server.replies)


def sent(server: Server) -> list[tuple[str, str]]:
    return [(path, headers.get("authorization", "")) for path, headers in server.requests]


async def pull(upstream: Upstream) -> None:
    await upstream.get_manifest(REPOSITORY, TAG)


async def test_a_token_serves_until_it_expires(
    plain: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of 60 s is renewed in time, once for each life, in a pull of three minutes."""
    TokenServer(plain, plain).issue()
    accept_tokens(plain, "made")
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
        for _ in range(19):  # 180 s
            await pull(upstream)
            now += 10
    requests = sent(plain)
    assert requests[:3] == [(PATH, ""), ("/token", BASIC), (PATH, "Bearer made")]
    assert [path for path, _ in requests].count("/token") == 4
    assert len(requests) == 1 + 4 + 19


async def test_the_stated_life_counts(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    TokenServer(plain, plain).issue(expires_in=300)
    accept_tokens(plain, "made")
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    async with calling(plain.url()) as upstream:
        for pause in (289, 2, 0):
            await pull(upstream)
            now += pause
    assert [path for path, _ in sent(plain)].count("/token") == 2


async def test_a_revoked_token_is_replaced_by_the_first_challenge(plain: Server) -> None:
    """The second token is requested where the challenge without a token says (nvcr.io)."""
    server = TokenServer(plain, plain)
    server.issue()
    accept_tokens(plain, "made")
    async with calling(plain.url()) as upstream:
        await pull(upstream)
        plain.replies = dict(plain.replies)
        plain.replies[PATH] = server.challenge()
        server.issue(token="other")  # noqa: S106
        accept_tokens(plain, "other")
        plain.requests.clear()
        await pull(upstream)
    assert sent(plain) == [
        (PATH, "Bearer made"), (PATH, ""), ("/token", ""), (PATH, "Bearer other"),
    ]  # fmt: skip


async def test_many_requests_share_one_token_request(plain: Server) -> None:
    server = TokenServer(plain, plain)
    plain.replies["/token"] = Reply(b'{"access_token": "made"}', drip=0.1)
    accept_tokens(plain, "made")
    assert server.realm
    async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
        first = asyncio.create_task(pull(upstream))
        others = [asyncio.create_task(pull(upstream)) for _ in range(9)]
        await asyncio.sleep(0.05)
        first.cancel()  # the others still get their token
        await asyncio.gather(*others)
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
    assert [path for path, _ in sent(plain)].count("/token") == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"service": ["s"], "scope": [SCOPE]}),
        ({"scope": "repository:x:pull"}, {"service": ["s"], "scope": ["repository:x:pull"]}),
        ({"service": ""}, {"scope": [SCOPE]}),
    ],
)  # fmt: skip
async def test_what_is_asked_for(
    plain: Server, more: dict[str, str], expected: dict[str, list[str]]
) -> None:
    async with hostile(
        say(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n", b'{"token": "made"}')
    ) as tokens:
        server = TokenServer(plain, plain)
        server.realm = f"{tokens.url}/token?account=x"
        plain.replies[PATH] = server.challenge(**more)
        async with calling(plain.url()) as upstream:
            with pytest.raises(UpstreamError):
                await pull(upstream)
        target = tokens.heads[0].split(" ")[1]
    assert parse_qs(target.partition("?")[2]) == {"account": ["x"], **expected}


async def test_an_identity_token_is_a_refresh_token(plain: Server) -> None:
    """The token is in a form, and nowhere else (OAuth 2 of Azure)."""
    made = b'{"access_token": "made"}'
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        bodies.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(made), made))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as tokens:
        server = TokenServer(plain, plain)
        origin = f"http://127.0.0.1:{tokens.sockets[0].getsockname()[1]}"
        server.realm = f"{origin}/oauth2/token"
        plain.replies[PATH] = server.challenge()
        accept_tokens(plain, "made")
        source = from_settings("<token>", PASSWORD)
        async with calling(plain.url(), credentials=source, token_origins=[origin]) as upstream:
            await pull(upstream)
    [raw] = bodies
    head, _, form = raw.decode().partition("\r\n\r\n")
    assert head.startswith("POST /oauth2/token HTTP/1.1\r\n")
    assert "authorization" not in head.lower()
    assert parse_qs(form) == {
        "grant_type": ["refresh_token"], "refresh_token": [PASSWORD], "client_id": ["moorage"],
        "service": ["s"], "scope": [SCOPE],
    }  # fmt: skip


class TestForeignRealms:
    """A token server of another origin gets no credentials, unless the operator lists it."""

    async def test_listed(self, plain: Server, strange: Server) -> None:
        TokenServer(plain, strange, STRANGE).issue()
        accept_tokens(plain, "made")
        origin = strange.url("", STRANGE)
        async with calling(plain.url(), credentials=SIGNED_IN, token_origins=[origin]) as upstream:
            await pull(upstream)
        assert sent(strange) == [("/token", BASIC)]

    async def test_not_listed(self, plain: Server, strange: Server) -> None:
        TokenServer(plain, strange, STRANGE).issue()
        async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
            with pytest.raises(UpstreamDeniedError, match="add it to the token origins"):
                await pull(upstream)
        assert strange.requests == []

    async def test_anonymous(self, plain: Server, strange: Server) -> None:
        TokenServer(plain, strange, STRANGE).issue()
        accept_tokens(plain, "made")
        async with calling(plain.url()) as upstream:
            await pull(upstream)
        assert sent(strange) == [("/token", "")]

    @pytest.mark.parametrize(
        "realm",
        [
            "http://169.254.169.254/token",
            "http://0.0.0.0/token",
            "http://[::]/token",
            "http://8.8.8.8/token",  # without TLS
        ],
    )
    async def test_addresses_that_are_never_called(self, plain: Server, realm: str) -> None:
        server = TokenServer(plain, plain)
        server.realm = realm
        plain.replies[PATH] = server.challenge()
        async with calling(plain.url()) as upstream:
            with pytest.raises(UpstreamAddressError):
                await pull(upstream)

    @pytest.mark.parametrize(
        "realm",
        [
            "http://127.0.0.1:{own}@127.0.0.2:{port}/token",
            "http://ann@127.0.0.1:{own}/token",
            "ftp://127.0.0.1/token",
            "/token",
        ],
    )
    async def test_realms_that_are_no_url(self, plain: Server, strange: Server, realm: str) -> None:
        server = TokenServer(plain, plain)
        server.realm = realm.format(own=plain.port, port=strange.port)
        plain.replies[PATH] = server.challenge()
        for credentials in (None, SIGNED_IN):
            async with calling(plain.url(), credentials=credentials) as upstream:
                with pytest.raises(UpstreamProtocolError):
                    await pull(upstream)
        assert strange.requests == []
        assert "/token" not in [path for path, _ in sent(plain)]

    async def test_a_token_server_redirects(self, plain: Server, strange: Server) -> None:
        TokenServer(plain, plain)
        place = strange.url("/token", STRANGE)
        plain.replies["/token"] = Reply(b"", 307, {"location": place})
        async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
            with pytest.raises(UpstreamProtocolError, match="status 307"):
                await pull(upstream)
        assert strange.requests == []

    def test_docker_hub_and_others_are_known(self) -> None:
        known = module._TOKEN_ORIGINS
        assert known["https://registry-1.docker.io"] == ("https://auth.docker.io",)


class TestRefusals:
    """Errors of a token server."""

    @pytest.mark.parametrize(
        ("reply", "expected"),
        [
            (Reply(b"secret-word", 401), UpstreamCredentialsError),
            (Reply(b"secret-word", 403), UpstreamDeniedError),
            (Reply(b"secret-word", 429), UpstreamRateLimitedError),
            (Reply(b"secret-word", 500), UpstreamUnavailableError),
            (Reply(b"secret-word"), UpstreamProtocolError),
            (Reply(b"[]"), UpstreamProtocolError),
            (Reply(b'{"token": 1}'), UpstreamProtocolError),
            (Reply(b'{"token": "secret-word\\r\\nX: y"}'), UpstreamProtocolError),
            (Reply(b'{"token": ""}'), UpstreamProtocolError),
            (Reply(b" " * 2000 + b"{}"), UpstreamProtocolError),
            (Reply(drip=3), UpstreamUnavailableError),
        ],
        ids=str,
    )
    async def test_errors(
        self,
        plain: Server,
        reply: Reply,
        expected: type[UpstreamError],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "_MOST_BYTES", 1000)
        TokenServer(plain, plain)
        plain.replies["/token"] = reply
        async with calling(plain.url(), credentials=SIGNED_IN, deadlines=SHORT) as upstream:
            with pytest.raises(UpstreamError) as caught:
                await pull(upstream)
        assert type(caught.value) is expected
        assert "secret-word" not in caught.value.message

    async def test_a_token_that_is_not_accepted(self, plain: Server) -> None:
        TokenServer(plain, plain).issue()
        async with calling(plain.url(), credentials=SIGNED_IN) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamDeniedError):
                    await pull(upstream)
        assert len(plain.requests) < 10


class TestRedirects:
    """A redirect gets neither credentials nor a token, and leads to no forbidden address."""

    @pytest.fixture
    def redirecting(self, plain: Server, strange: Server) -> Server:
        TokenServer(plain, plain).issue()
        place = strange.url("/store", STRANGE)
        plain.replies[BLOB_PATH] = Reply(b"x" * 100, 307, {"location": place})
        strange.replies["/store"] = Reply(BLOB)
        accept_tokens(plain, "made")
        return plain

    async def read(self, upstream: Upstream) -> bytes:
        async with upstream.open_blob(REPOSITORY, DIGEST, size=len(BLOB)) as body:
            return b"".join([piece async for piece in body])

    async def test_the_other_server_gets_no_secret(
        self, redirecting: Server, strange: Server
    ) -> None:
        async with calling(redirecting.url(), credentials=SIGNED_IN) as upstream:
            await pull(upstream)
            assert await self.read(upstream) == BLOB
            assert sent(redirecting)[-1] == (BLOB_PATH, "Bearer made")  # control
            challenge = {"www-authenticate": "Basic realm=x"}
            strange.replies["/store"] = Reply(BLOB, 401, challenge)
            with pytest.raises(UpstreamDeniedError, match="another origin"):
                await self.read(upstream)
        assert len(strange.requests) == 2
        for _, headers in strange.requests:
            assert PASSWORD not in str(headers)
            assert "authorization" not in headers
            assert "made" not in str(headers)

    @pytest.mark.parametrize(
        "location",
        [
            "http://169.254.169.254/latest/meta-data",
            "https://169.254.169.254/",
            "http://0.0.0.0/",
            "https://[::ffff:169.254.169.254]/",
            "http://8.8.8.8/",
        ],
    )
    async def test_forbidden_addresses(self, plain: Server, location: str) -> None:
        plain.replies[BLOB_PATH] = Reply(b"", 307, {"location": location})
        async with calling(plain.url()) as upstream:
            with pytest.raises(UpstreamAddressError):
                await self.read(upstream)

    async def test_a_public_upstream_leads_to_no_private_address(
        self, names: dict[str, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The address is checked again for each redirect, after the name is resolved."""
        monkeypatch.setattr(transport, "is_public", lambda address: str(address) == STRANGE)
        authority = Authority()
        (tmp_path / "ca.pem").write_bytes(authority.bundle)
        keys = authority.issue(tmp_path, "public.test", "inside.test", "127.0.0.1", "localhost")
        names["public.test"] = [[STRANGE]]
        names["inside.test"] = [["127.0.0.1"]]
        names["mixed.test"] = [[STRANGE, "127.0.0.1"]]
        with running(STRANGE, tls=keys) as public, running(tls=keys) as inside:
            inside.replies["/store"] = Reply(BLOB)
            hosts = ["127.0.0.1", "localhost", "inside.test", "mixed.test"]
            url = public.url("", "public.test")
            for host in hosts:
                place = inside.url("/store", host)
                public.replies[BLOB_PATH] = Reply(b"", 307, {"location": place})
                async with calling(
                    url, allow_private=False, ca_file=tmp_path / "ca.pem"
                ) as upstream:
                    with pytest.raises(UpstreamAddressError):
                        await self.read(upstream)
            assert inside.requests == []
            assert len(public.requests) == len(hosts)
            # Control: the redirect works where private addresses are allowed.
            public.replies[BLOB_PATH] = Reply(b"", 307, {"location": inside.url("/store")})
            async with calling(url, ca_file=tmp_path / "ca.pem") as upstream:
                assert await self.read(upstream) == BLOB

    async def test_tls_is_not_given_up(self, plain: Server, tmp_path: Path) -> None:
        authority = Authority()
        (tmp_path / "ca.pem").write_bytes(authority.bundle)
        with running(tls=authority.issue(tmp_path, "127.0.0.1")) as server:
            for path, reply in (
                (BLOB_PATH, Reply(b"", 307, {"location": plain.url("/")})),
                (PATH, TokenServer(server, plain).challenge()),
            ):
                server.replies[path] = reply
            async with calling(server.url(), ca_file=tmp_path / "ca.pem") as upstream:
                with pytest.raises(UpstreamProtocolError, match="without TLS"):
                    await self.read(upstream)
                with pytest.raises(UpstreamProtocolError, match="without TLS"):
                    await pull(upstream)
        assert plain.requests == []
