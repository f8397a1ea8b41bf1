"""Outbound proxies, and the limit of connections."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.client.breaker import BreakerState
from registry.client.credentials import from_settings
from registry.client.upstream import Upstream
from registry.errors import (
    ConfigError,
    UpstreamAddressError,
    UpstreamBusyError,
    UpstreamUnavailableError,
)
from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.client.conftest import REPOSITORY, SHORT, TAG, calling
from tests.support.servers.certificates import Authority
from tests.support.servers.hostile import hostile, say, stall
from tests.support.servers.upstream import Reply
from tests.support.servers.upstream import Upstream as Server
from tests.support.servers.upstream import upstream as running

pytestmark = pytest.mark.anyio

PATH = f"/v2/{REPOSITORY}/manifests/{TAG}"
MANIFEST = Reply(b"{}", 200, {"content-type": OCI_MANIFEST})
BODY = Digest.of(b"{}")


@dataclass
class Proxy:
    """A proxy that leads every host to `port` of loopback. `heads` holds what it was sent."""

    port: int
    own: int = 0
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://user:p%40ss@127.0.0.1:{self.own}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            if head.startswith("CONNECT "):
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                line, _, rest = head.partition("\r\n")
                method, url, version = line.split(" ")
                path = "/" + url.split("/", 3)[3]
                kept = [each for each in rest.split("\r\n") if not each.startswith("Proxy-")]
                back.write("\r\n".join([f"{method} {path} {version}", *kept]).encode())
            await asyncio.gather(copy(reader, back), copy(there, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxying(server: Server) -> AsyncIterator[Proxy]:
    proxy = Proxy(server.port)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1") as listening:
        proxy.own = listening.sockets[0].getsockname()[1]
        yield proxy
        await asyncio.sleep(0.1)  # until both sides of each connection are closed


async def test_a_proxy_resolves_the_name(plain: Server) -> None:
    plain.replies[PATH] = MANIFEST
    async with (
        proxying(plain) as proxy,
        calling("http://registry.test", proxy=proxy.url) as upstream,
    ):
        assert (await upstream.get_manifest(REPOSITORY, TAG)).digest == BODY
    [head] = proxy.heads
    assert head.startswith(f"GET http://registry.test:80{PATH} HTTP/1.1\r\n")
    proof = base64.b64encode(b"user:p@ss").decode()
    assert f"Proxy-Authorization: Basic {proof}\r\n" in head
    [(_, headers)] = plain.requests
    assert headers["host"] == "registry.test"
    assert "proxy-authorization" not in headers


async def test_a_proxy_sees_no_secret_of_a_registry_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.bundle)
    with running(tls=authority.issue(tmp_path, "registry.test")) as server:
        server.replies[PATH] = Reply(b"", 401, {"www-authenticate": "Basic realm=x"})
        options = {
            "allow_private": False,
            "ca_file": tmp_path / "ca.pem",
            "credentials": from_settings("ann", "secret-word"),
        }
        async with proxying(server) as proxy:
            url = f"https://registry.test:{server.port}"
            async with calling(url, proxy=proxy.url, **options) as upstream:
                with pytest.raises(Exception, match="refuses the user name"):
                    await upstream.get_manifest(REPOSITORY, TAG)
            async with calling(url.replace("registry", "other"), proxy=proxy.url) as upstream:
                with pytest.raises(UpstreamUnavailableError, match="certificate"):
                    await upstream.get_manifest(REPOSITORY, TAG)
        assert all(head.startswith("CONNECT ") for head in proxy.heads)
        assert all(head.count("Authorization") == 1 for head in proxy.heads)  # that of the proxy
        _, headers = server.requests[-1]
        assert headers["authorization"].startswith("Basic ")  # control
        assert "proxy-authorization" not in headers


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1",
        "https://localhost",
        "https://169.254.169.254",
        "http://registry.test",
        "https://[::1]",
    ],
)
async def test_a_proxy_is_asked_for_no_private_address(plain: Server, url: str) -> None:
    async with proxying(plain) as proxy:
        async with calling(url, proxy=proxy.url, allow_private=False) as upstream:
            with pytest.raises(UpstreamAddressError):
                await upstream.ping()
        assert proxy.heads == []


async def test_a_proxy_that_refuses() -> None:
    refusal = b"HTTP/1.1 407 secret-word\r\nContent-Length: 0\r\n\r\n"
    async with (
        hostile(say(refusal)) as proxy,
        calling("https://registry.test", proxy=proxy.url) as upstream,
    ):
        with pytest.raises(UpstreamUnavailableError, match="proxy does not connect") as caught:
            await upstream.ping()
    assert "secret-word" not in caught.value.message


@pytest.mark.parametrize("proxy", ["secret-word", "ftp://secret-word", "http://", "http://[::"])
def test_proxies_that_are_no_url(proxy: str) -> None:
    with pytest.raises(ConfigError, match="the proxy must be a URL") as caught:
        Upstream("https://registry.test", proxy=proxy)
    assert "secret-word" not in caught.value.message


async def test_a_request_does_not_wait_long_for_a_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"
    options = {"max_connections": 1, "deadlines": SHORT}
    async with hostile(stall(head)) as server, calling(server.url, **options) as upstream:
        async with upstream.open_blob(REPOSITORY, BODY) as body:
            await anext(body)
            for _ in range(6):
                with pytest.raises(UpstreamBusyError, match="all 1 connections"):
                    await upstream.ping()
        assert upstream.breaker.state is BreakerState.CLOSED
        assert len(server.heads) == 1
        server.script = say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await upstream.ping()
