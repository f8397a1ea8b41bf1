"""Documents from a real server on loopback, and addresses that must never be contacted."""

import asyncio
import gzip
import time
from pathlib import Path

import pytest

from registry.client import web as module
from registry.client.web import MAX_DOCUMENT, Web
from registry.errors import ConfigError, UpstreamError
from tests.support.servers.certificates import Authority
from tests.support.servers.upstream import Reply, Upstream, upstream

pytestmark = pytest.mark.anyio
SEVERAL = pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2", "127.0.0.3"])


@pytest.fixture
def web() -> Web:
    return Web(allow_private=True)


async def test_fetches_a_document(plain: Upstream, web: Web) -> None:
    plain.put("/keys", {"keys": [1]})
    assert await web.get_json(plain.url("/keys?page=1")) == {"keys": [1]}
    [(path, headers)] = plain.requests
    assert path == "/keys"
    assert headers["host"] == f"127.0.0.1:{plain.port}"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"secret-word", 404),
        Reply(b"secret-word", 500),
        Reply(b"secret-word", 401, {"www-authenticate": "Bearer realm=secret-word"}),
        Reply(b"{}", 204, announced=False),
        Reply(b"secret-word"),
        Reply(b"[" * 100_000),
        Reply(b"9" * 5000),
        Reply(b"\xff\xfe"),
        Reply(b"{}", headers={"content-encoding": "br"}),
        Reply(gzip.compress(b"{}", mtime=0), headers={"content-encoding": "gzip"}),
        Reply(b"secret-word", headers={"transfer-encoding": "secret-word"}),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:20]!r} {reply.headers}",
)
async def test_an_answer_that_is_no_document(plain: Upstream, web: Web, reply: Reply) -> None:
    plain.replies["/"] = reply
    with pytest.raises(UpstreamError) as caught:
        await web.get_json(plain.url("/"))
    assert "secret-word" not in f"{caught.value.message} {caught.value.detail}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(plain: Upstream, web: Web, status: int) -> None:
    plain.put("/there", {})
    plain.replies["/"] = Reply(status=status, headers={"location": plain.url("/there")})
    with pytest.raises(UpstreamError, match=f"status {status}"):
        await web.get_json(plain.url("/"))
    assert [path for path, _ in plain.requests] == ["/"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_document_is_limited(plain: Upstream, web: Web, announced: bool) -> None:
    document = b'"' + b"x" * (MAX_DOCUMENT - 2) + b'"'
    plain.replies["/most"] = Reply(document, announced=announced)
    plain.replies["/more"] = Reply(document + b" ", announced=announced)
    assert len(await web.get_json(plain.url("/most"))) == MAX_DOCUMENT - 2
    with pytest.raises(UpstreamError, match="more than 1048576 bytes"):
        await web.get_json(plain.url("/more"))


@pytest.mark.parametrize("reply", [Reply(drip=3), Reply(stall=3)])
async def test_a_server_that_stalls(
    plain: Upstream, web: Web, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE", 0.3)
    plain.replies["/"] = reply
    begin = time.monotonic()
    with pytest.raises(UpstreamError, match="did not respond"):
        await web.get_json(plain.url("/"))
    assert time.monotonic() - begin < 2


async def test_a_server_that_speaks_no_http(web: Web) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"secret-word\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamError, match="sent an invalid or incomplete response") as caught:
            await web.get_json(f"http://127.0.0.1:{port}/")
    assert "secret-word" not in caught.value.message


async def test_a_server_that_is_not_there(web: Web) -> None:
    with upstream() as gone:
        pass
    with pytest.raises(UpstreamError, match="cannot reach"):
        await web.get_json(gone.url())


async def test_a_name_without_an_address(web: Web) -> None:
    with pytest.raises(UpstreamError, match="cannot resolve the host name"):
        await web.get_json(f"https://{'a' * 64}.invalid/")


class TestTls:
    """Certificates are always verified, against the host name and not the address."""

    async def test_an_authority_of_our_own(
        self, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        authority = Authority()
        (tmp_path / "ca.pem").write_bytes(authority.bundle)
        web = Web(allow_private=True, ca_file=tmp_path / "ca.pem")
        names["issuer.test"] = [["127.0.0.1"]]
        with upstream(tls=authority.issue(tmp_path, "issuer.test")) as server:
            server.put("/", {"a": 1})
            assert await web.get_json(server.url("/", "issuer.test")) == {"a": 1}
            [(_, headers)] = server.requests
            assert headers["host"] == f"issuer.test:{server.port}"
            with pytest.raises(UpstreamError, match="certificate"):
                await web.get_json(server.url("/"))

    @pytest.mark.parametrize("fault", ["authority", "name", "expired"])
    async def test_a_bad_certificate(
        self, tmp_path: Path, names: dict[str, list[list[str]]], fault: str
    ) -> None:
        authority = Authority()
        trusted = Authority() if fault == "authority" else authority
        (tmp_path / "ca.pem").write_bytes(trusted.bundle)
        web = Web(allow_private=True, ca_file=tmp_path / "ca.pem")
        names["issuer.test"] = [["127.0.0.1"]]
        tls = authority.issue(
            tmp_path,
            "other.test" if fault == "name" else "issuer.test",
            days=-1 if fault == "expired" else 30,
        )
        with upstream(tls=tls) as server:
            server.put("/", {})
            with pytest.raises(UpstreamError, match="certificate"):
                await web.get_json(server.url("/", "issuer.test"))
            assert server.requests == []

    async def test_the_systems_authorities_do_not_know_ours(self, tmp_path: Path) -> None:
        with upstream(tls=Authority().issue(tmp_path, "127.0.0.1")) as server:
            with pytest.raises(UpstreamError, match="certificate"):
                await Web(allow_private=True).get_json(server.url("/"))
            assert server.requests == []

    @pytest.mark.parametrize("content", [None, b"", b"no PEM"])
    def test_authorities_that_cannot_be_used(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match="CA certificates in"):
            Web(ca_file=path)


class TestAddresses:
    """The client connects only to an address that it has checked."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "192.168.0.1", "[fd00::1]", "0.0.0.0",  # noqa: S104
         "169.254.169.254", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "2130706433", "127.1",
         "0x7f.0.0.1", "[fe80::1]", "224.0.0.1", "100.64.0.1"],
    )  # fmt: skip
    async def test_private_ones_are_refused(self, scheme: str, host: str) -> None:
        with pytest.raises(UpstreamError, match="must not be called"):
            await Web().get_json(f"{scheme}://{host}/")

    @pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[::]", "224.0.0.1"])  # noqa: S104
    async def test_some_are_refused_everywhere(self, web: Web, host: str) -> None:
        with pytest.raises(UpstreamError, match="must not be called"):
            await web.get_json(f"https://{host}/")

    async def test_http_is_for_private_ones(
        self, web: Web, names: dict[str, list[list[str]]]
    ) -> None:
        names["public.test"] = [["8.8.8.8"]]
        with pytest.raises(UpstreamError, match="must not be called"):
            await web.get_json("http://public.test/")
        with pytest.raises(UpstreamError, match="must not be called"):
            await web.get_json("http://8.8.8.8/")

    async def test_one_private_address_among_others(
        self, names: dict[str, list[list[str]]]
    ) -> None:
        names["mixed.test"] = [["8.8.8.8", "127.0.0.1"]]
        with pytest.raises(UpstreamError, match="must not be called"):
            await Web().get_json("https://mixed.test/")

    @SEVERAL
    async def test_rebinding(self, web: Web, names: dict[str, list[list[str]]]) -> None:
        """A request looks a name up only once, so a second answer cannot redirect it."""
        with upstream() as judged, upstream("127.0.0.2", judged.port) as other:
            judged.put("/", "judged")
            other.put("/", "other")
            names["rebinding.test"] = [["127.0.0.1"], ["127.0.0.2"]]
            url = judged.url("/", "rebinding.test")
            assert await web.get_json(url) == "judged"
            assert other.requests == []
            # Control: the next lookup returns the second address.
            assert await web.get_json(url) == "other"

    @SEVERAL
    async def test_the_next_address_is_tried(
        self, plain: Upstream, web: Web, names: dict[str, list[list[str]]]
    ) -> None:
        plain.put("/", 1)
        names["two.test"] = [["127.0.0.3", "127.0.0.1"]]
        assert await web.get_json(plain.url("/", "two.test")) == 1

    async def test_the_environment_is_not_trusted(
        self, plain: Upstream, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.9:9")
        plain.put("/", 1)
        assert await web.get_json(plain.url("/")) == 1
