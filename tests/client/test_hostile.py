"""Upstreams that lie, stall, or never stop."""

import asyncio
import gzip
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from registry.client.breaker import BreakerState
from registry.client.upstream import MAX_MANIFEST, Upstream
from registry.errors import (
    UpstreamDeniedError,
    UpstreamDigestError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)
from registry.oci.media_types import OCI_MANIFEST, SCHEMA1_TYPES
from storage.digest import Digest
from tests.client import conftest
from tests.client.conftest import REPOSITORY, SHORT, TAG
from tests.support.servers.hostile import Script, drip, hostile, response, say, stall

pytestmark = pytest.mark.anyio

calling = partial(conftest.calling, deadlines=SHORT)

SECRET = b"secret-word"
BLOB = b"a layer" * 100
DIGEST = Digest.of(BLOB)
BOMB = gzip.compress(bytes(50 << 20))


def manifest(body: bytes, *lines: str) -> bytes:
    return response(body, f"Content-Type: {OCI_MANIFEST}", *lines)


def part(body: bytes, stated: str) -> bytes:
    return response(body, f"Content-Range: bytes {stated}", status="206 Partial Content")


async def get_manifest(upstream: Upstream) -> object:
    return await upstream.get_manifest(REPOSITORY, TAG)


async def get_manifest_by_digest(upstream: Upstream) -> object:
    return await upstream.get_manifest(REPOSITORY, DIGEST)


async def head_manifest(upstream: Upstream) -> object:
    return await upstream.head_manifest(REPOSITORY, DIGEST)


async def get_blob(upstream: Upstream, start: int = 0, stop: int | None = None) -> bytes:
    async with upstream.open_blob(
        REPOSITORY, DIGEST, size=len(BLOB), start=start, stop=stop
    ) as body:
        return b"".join([piece async for piece in body])


async def get_rest(upstream: Upstream) -> bytes:
    return await get_blob(upstream, start=100)


async def get_part(upstream: Upstream) -> bytes:
    return await get_blob(upstream, start=100, stop=200)


async def list_tags(upstream: Upstream) -> list[object]:
    return [tag async for tag in upstream.iter_tags(REPOSITORY)]


async def list_referrers(upstream: Upstream) -> object:
    return await upstream.list_referrers(REPOSITORY, DIGEST)


HTML = ("Content-Type: text/html; charset=utf-8",)
CHUNKED = ("Transfer-Encoding: chunked",)
UNKNOWN = response(SECRET, status="404 Not Found")

CASES: dict[str, tuple[Callable[[Upstream], Awaitable[object]], Script, type[UpstreamError]]] = {
    "closes": (get_blob, say(), UpstreamUnavailableError),
    "no HTTP": (get_blob, say(SECRET + b"\r\n\r\n"), UpstreamUnavailableError),
    "endless head": (
        get_blob, say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600_000), UpstreamUnavailableError),
    "endless lines": (
        get_blob, drip(b"HTTP/1.1 200 OK\r\n", b"X: secret-word\r\n" * 1000, 0),
        UpstreamUnavailableError),
    "endless 103": (
        get_blob, drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0), UpstreamUnavailableError),
    "chunked garbage": (
        get_blob, say(response(b"zz\r\nsecret-word", *CHUNKED)), UpstreamUnavailableError),
    "chunk without end": (
        get_blob, say(response(b"5\r\nsecre", *CHUNKED)), UpstreamUnavailableError),
    "short chunks": (
        get_blob, say(response(b"5\r\nsecre\r\n0\r\n\r\n", *CHUNKED)), UpstreamProtocolError),
    "short body": (
        get_blob, say(response(BLOB[:-9], f"Content-Length: {len(BLOB)}")),
        UpstreamUnavailableError),
    "shorter blob": (get_blob, say(response(BLOB[:-1])), UpstreamProtocolError),
    "longer blob": (get_blob, say(response(BLOB + b"x")), UpstreamProtocolError),
    "endless blob": (
        get_blob, drip(response(b"", *CHUNKED), b"5\r\nsecre\r\n" * 1000, 0),
        UpstreamProtocolError),
    "two lengths": (
        get_blob, say(response(BLOB, "Content-Length: 1", "Content-Length: 700")),
        UpstreamUnavailableError),
    "web page": (get_blob, say(response(BLOB, *HTML)), UpstreamProtocolError),
    "gzip bomb": (get_blob, say(response(BOMB, "Content-Encoding: gzip")), UpstreamProtocolError),
    "stall before the head": (get_blob, stall(), UpstreamUnavailableError),
    "stall in the head": (get_blob, stall(b"HTTP/1.1 200"), UpstreamUnavailableError),
    "stall in the body": (
        get_blob, stall(response(BLOB[:5], f"Content-Length: {len(BLOB)}")),
        UpstreamUnavailableError),
    "drip": (
        get_blob, drip(response(b"", f"Content-Length: {len(BLOB)}"), b"x", 0.05),
        UpstreamUnavailableError),
    "no range": (
        get_rest, say(part(BLOB, "0-9/10")),
        UpstreamProtocolError),
    "other range": (
        get_rest, say(part(BLOB[99:], f"99-699/{len(BLOB)}")),
        UpstreamProtocolError),
    "shorter range": (
        get_rest, say(part(BLOB[100:600], f"100-599/{len(BLOB)}")),
        UpstreamProtocolError),
    "longer range": (
        get_part, say(part(BLOB[100:], f"100-699/{len(BLOB)}")),
        UpstreamProtocolError),
    "range of another blob": (
        get_rest, say(part(BLOB[100:], "100-699/800")),
        UpstreamProtocolError),
    "range with a longer body": (
        get_part, say(part(BLOB[100:], f"100-199/{len(BLOB)}")),
        UpstreamProtocolError),
    "partial without a request": (
        get_blob, say(part(BLOB[1:], "1-699/700")),
        UpstreamProtocolError),
    "416": (get_rest, say(response(status="416 Range Not Satisfiable")), UpstreamProtocolError),
    "other manifest": (get_manifest_by_digest, say(manifest(b"{}")), UpstreamDigestError),
    "other manifest than stated": (
        get_manifest, say(manifest(b"{}", f"Docker-Content-Digest: {DIGEST}")),
        UpstreamDigestError),
    "invalid digest": (
        get_manifest, say(manifest(b"{}", "Docker-Content-Digest: secret-word")),
        UpstreamProtocolError),
    "other digest in HEAD": (
        head_manifest, say(manifest(b"", f"Docker-Content-Digest: {Digest.of(b'')}")),
        UpstreamDigestError),
    "large manifest": (
        get_manifest, say(manifest(b" " * (MAX_MANIFEST + 1))), UpstreamProtocolError),
    "endless manifest": (
        get_manifest,
        drip(manifest(b"", *CHUNKED), b"10000\r\n" + bytes(1 << 16) + b"\r\n", 0),
        UpstreamProtocolError),
    "slow manifest": (
        get_manifest, drip(manifest(b"", *CHUNKED), b"800\r\n" + bytes(2048) + b"\r\n", 0.1),
        UpstreamUnavailableError),
    "web page for a manifest": (get_manifest, say(response(b"{}", *HTML)), UpstreamProtocolError),
    "no media type": (get_manifest, say(response(b"{}")), UpstreamProtocolError),
    "schema 1": (
        get_manifest,
        say(response(b"{}", f"Content-Type: {min(SCHEMA1_TYPES)}")),
        UpstreamProtocolError),
    "tags that are no JSON": (list_tags, say(response(SECRET)), UpstreamProtocolError),
    "tags that are no object": (list_tags, say(response(b"[1]")), UpstreamProtocolError),
    "tags that are no list": (list_tags, say(response(b'{"tags": 1}')), UpstreamProtocolError),
    "deep tags": (list_tags, say(response(b"[" * 100_000)), UpstreamProtocolError),
    "tags elsewhere": (
        list_tags,
        say(response(b'{"tags": ["a"]}', 'Link: <http://169.254.169.254/x>; rel="next"')),
        UpstreamProtocolError),
    "endless pages": (
        list_tags, say(response(b'{"tags": ["a"]}', 'Link: </v2/x>; rel="next"')),
        UpstreamProtocolError),
    "referrers that are none": (
        list_referrers, say(response(b'{"manifests": [{"digest": "secret-word"}]}')),
        UpstreamProtocolError),
    "401": (get_blob, say(response(SECRET, status="401 Unauthorized")), UpstreamDeniedError),
    "401 loop": (
        get_blob, say(response(SECRET, "WWW-Authenticate: Basic realm=x", status="401")),
        UpstreamDeniedError),
    "malformed challenge": (
        get_blob,
        say(response(SECRET, 'WWW-Authenticate: Bearer realm="secret-word', status="401")),
        UpstreamProtocolError),
    "realm without a URL": (
        get_blob, say(response(SECRET, "WWW-Authenticate: Bearer realm=secret-word", status="401")),
        UpstreamProtocolError),
    "403": (get_blob, say(response(SECRET, status="403 Forbidden")), UpstreamDeniedError),
    "404": (get_blob, say(UNKNOWN), UpstreamUnknownError),
    "418": (get_blob, say(response(SECRET, status="418 Teapot")), UpstreamProtocolError),
    "429": (get_blob, say(response(SECRET, status="429 Slow")), UpstreamRateLimitedError),
    "500": (get_blob, say(response(SECRET, status="500 Oops")), UpstreamUnavailableError),
    "503": (get_blob, say(response(SECRET, status="503 Busy")), UpstreamUnavailableError),
    "redirect to nowhere": (
        get_blob, say(response(b"", "Location: http://[", status="307 There")),
        UpstreamProtocolError),
    "redirect without a place": (
        get_blob, say(response(b"", status="307 There")), UpstreamProtocolError),
    "circle": (
        get_blob, say(response(b"", "Location: /v2/", status="307 There")), UpstreamProtocolError),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_lie_is_an_error(case: str) -> None:
    action, script, expected = CASES[case]
    async with hostile(script) as server, calling(server.url) as upstream:
        with pytest.raises(UpstreamError) as caught:
            # Far above every deadline of the client, so that a hang fails.
            await asyncio.wait_for(action(upstream), 20)
        assert type(caught.value) is expected
        assert "secret-word" not in f"{caught.value.message} {caught.value.detail}"
        assert upstream._transport._free._value == upstream._transport.max_connections


async def test_the_truth_is_no_error() -> None:
    """Control: the same requests get what an honest server sends."""
    async with hostile(say(response(BLOB))) as server, calling(server.url) as upstream:
        assert await get_blob(upstream) == BLOB
        assert await get_rest(upstream) == BLOB[100:]  # a server that ignores Range
        assert await get_part(upstream) == BLOB[100:200]
        server.script = say(response(BLOB, "Content-Encoding: identity"))
        assert await get_blob(upstream) == BLOB
        length = len(BLOB)
        server.script = say(part(BLOB[100:], f"100-{length - 1}/{length}"))
        assert await get_rest(upstream) == BLOB[100:]
        assert "Range: bytes=100-\r\n" in server.heads[-1]
        server.script = say(part(BLOB[100:200], "100-199/*"))
        assert await get_part(upstream) == BLOB[100:200]
        assert "Range: bytes=100-199\r\n" in server.heads[-1]
        server.script = say(manifest(BLOB, f"Docker-Content-Digest: {DIGEST}"))
        assert await get_manifest_by_digest(upstream)


async def test_an_unknown_size_is_an_error() -> None:
    script = say(response(b"1\r\nx\r\n0\r\n\r\n", *CHUNKED))
    async with hostile(script) as server, calling(server.url) as upstream:
        with pytest.raises(UpstreamProtocolError, match="does not state the size"):
            async with upstream.open_blob(REPOSITORY, DIGEST):
                pass


async def test_a_slow_reader_is_no_stall() -> None:
    size = 3 << 20
    script = say(response(bytes(size)))
    async with hostile(script) as server, calling(server.url) as upstream:
        count = 0
        async with upstream.open_blob(REPOSITORY, DIGEST, size=size) as body:
            async for piece in body:
                if not count:
                    await asyncio.sleep(1.1)  # longer than progress_s
                count += len(piece)
        assert count == size


async def test_endless_bodies_take_no_memory() -> None:
    """The client holds a few pieces at most, also while the reader of the body is slow."""
    flood = drip(response(b"", f"Content-Length: {1 << 40}"), bytes(1 << 20), 0)
    async with hostile(flood) as server, calling(server.url) as upstream:
        tracemalloc.start()
        try:
            async with upstream.open_blob(REPOSITORY, DIGEST, size=1 << 40) as body:
                count = 0
                async for piece in body:
                    count += len(piece)
                    assert len(piece) <= 256 << 10
                    if count > 32 << 20:
                        break
                await asyncio.sleep(0.2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20


class TestRateLimits:
    """A 429 says how long to wait, and whether other requests may be sent."""

    async def test_the_pull_limit_stops_manifests_alone(self) -> None:
        limited = response(
            b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your '
            b'pull rate limit. secret-word"}]}',
            "RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 0;w=21600", "Retry-After: 300",
            status="429 Too Many Requests",
        )  # fmt: skip
        async with hostile(say(limited)) as server, calling(server.url) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamRateLimitedError, match="pull limit") as caught:
                    await get_manifest(upstream)
                assert caught.value.is_pull_limit
                assert 290 < caught.value.retry_after <= 300
                assert "secret-word" not in caught.value.message
            assert len(server.heads) == 1
            quota = upstream.rate_limit
            assert quota is not None
            assert (quota.limit, quota.remaining, quota.window_s) == (100, 0, 21600)
            server.script = say(response(BLOB))
            assert await get_blob(upstream) == BLOB
            assert upstream.breaker.state is BreakerState.CLOSED

    @pytest.mark.parametrize(("lines", "seconds"), [(["Retry-After: 7"], 7), ([], 60)])
    async def test_other_limits_stop_everything(self, lines: list[str], seconds: int) -> None:
        limited = response(b"Too Many Requests", *lines, status="429 Too Many Requests")
        async with hostile(say(limited)) as server, calling(server.url) as upstream:
            with pytest.raises(UpstreamRateLimitedError, match="too many requests"):
                await get_blob(upstream)
            with pytest.raises(UpstreamRateLimitedError, match="is not called before") as caught:
                await get_manifest(upstream)
            assert not caught.value.is_pull_limit
            assert seconds - 5 < caught.value.retry_after <= seconds
            assert len(server.heads) == 1

    async def test_the_quota_is_read_from_every_response(self) -> None:
        lines = ["ratelimit-limit: 100;w=21600", "ratelimit-remaining: 76;w=21600"]
        async with hostile(say(manifest(b"", *lines))) as server, calling(server.url) as upstream:
            await upstream.head_manifest(REPOSITORY, TAG)
            assert upstream.rate_limit is not None
            assert upstream.rate_limit.remaining == 76


async def test_pages_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.client.upstream._MAX_PAGES", 5)
    count = 0

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await say(response(b'{"tags": ["a"]}', f'Link: <?last={count}>; rel="next"'))(writer)

    async with hostile(script) as server, calling(server.url) as upstream:
        with pytest.raises(UpstreamProtocolError, match="list without end"):
            await list_tags(upstream)
    assert count == 5


async def test_failures_in_bodies_open_the_breaker() -> None:
    short = response(BLOB[:-9], f"Content-Length: {len(BLOB)}")
    async with hostile(say(short)) as server, calling(server.url) as upstream:
        for _ in range(5):
            assert upstream.breaker.state is BreakerState.CLOSED
            with pytest.raises(UpstreamUnavailableError):
                await get_blob(upstream)
        assert upstream.breaker.state is BreakerState.OPEN
        with pytest.raises(UpstreamUnavailableError, match="is not called before"):
            await get_blob(upstream)
        assert len(server.heads) == 5
