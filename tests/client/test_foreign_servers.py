"""Servers of other origins, which get no credentials."""

from pathlib import Path

import pytest

from registry.client import authorization as module
from registry.client import transport
from registry.client.upstream import Upstream
from registry.errors import (
    UpstreamAddressError,
    UpstreamDeniedError,
    UpstreamProtocolError,
)
from tests.client.conftest import REPOSITORY, STRANGE, calling
from tests.client.token_servers import (
    BASIC,
    BLOB,
    BLOB_PATH,
    DIGEST,
    PASSWORD,
    PATH,
    SIGNED_IN,
    TokenServer,
    accept_tokens,
    pull,
    sent,
)
from tests.support.servers.certificates import Authority
from tests.support.servers.upstream import Reply
from tests.support.servers.upstream import Upstream as Server
from tests.support.servers.upstream import upstream as running

pytestmark = [pytest.mark.anyio, pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])]


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
