"""An upstream that fails or lies: what clients get, in each state of the cache."""

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.scenarios.mirrors.conftest import Image, Place
from tests.scenarios.mirrors.fake_upstream import FakeUpstream
from tests.scenarios.mirrors.test_pulls import pull
from tests.support.kit import codes
from tests.support.servers.hostile import Script, drip, response, say, stall

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

PATIENCE_S = 30.0
"""The time for which containerd waits for the headers of a response."""


@dataclass(frozen=True)
class Mirrors:
    """Two mirrors of one upstream.

    `fresh` looks a tag up once an hour, and `stale` at each request.
    """

    place: Place
    upstream: FakeUpstream
    fresh: str
    stale: str

    def move(self, url: str) -> None:
        """Change the URL of the upstream."""
        for name in (self.fresh, self.stale):
            self.place.moorage("mirror", "set", name, "--upstream", url)

    def repair(self) -> None:
        """End the failure, and what `fresh` remembers of it."""
        self.upstream.failure = None
        self.place.moorage("mirror", "set", self.fresh, "--max-connections", "8")


@pytest.fixture
async def mirrors(place: Place) -> AsyncIterator[Mirrors]:
    async with FakeUpstream().run() as upstream:
        mark = uuid.uuid4().hex[:8]
        made = Mirrors(place, upstream, f"fresh-{mark}", f"stale-{mark}")
        options = ["--upstream", upstream.url, "--allow-private", "--tag-ttl"]
        place.moorage("mirror", "add", made.fresh, *options, "1h")
        place.moorage("mirror", "add", made.stale, *options, "0s")
        yield made


@dataclass(frozen=True)
class Failure:
    """How the upstream fails: by a script, or at another URL.

    `status` and `code` are those of a request for content that is not cached, and `unknown` is
    whether the upstream says that the content does not exist.
    """

    script: Script | None = None
    url: str = ""
    status: int = 503
    code: str = "UNAVAILABLE"
    wait: str = ""
    unknown: bool = False


def refusal(status: str, *lines: str) -> Script:
    return say(response(b"secret-word", *lines, status=status))


PARTIAL = response(b"{", f"Content-Type: {OCI_MANIFEST}", "Content-Length: 500")
FAILURES = {
    "401": Failure(refusal("401 Unauthorized"), status=404, code="MANIFEST_UNKNOWN"),
    "403": Failure(refusal("403 Forbidden"), status=404, code="MANIFEST_UNKNOWN"),
    "404": Failure(refusal("404 Not Found"), status=404, code="MANIFEST_UNKNOWN", unknown=True),
    "429": Failure(refusal("429 Too Many Requests")),
    "429 with Retry-After": Failure(
        refusal("429 Too Many Requests", "Retry-After: 1234"), wait="1234"
    ),
    "500": Failure(refusal("500 Internal Server Error")),
    "stall before the headers": Failure(stall()),
    "stall in the body": Failure(stall(PARTIAL)),
    "refused": Failure(url="http://127.0.0.1:1"),
    "no address": Failure(url="http://upstream.invalid"),
    "web page": Failure(refusal("200 OK", "Content-Type: text/html")),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_a_failing_upstream(mirrors: Mirrors, http: httpx.AsyncClient, how: str) -> None:
    """Clients get what is cached, or a response that lets them ask their next registry."""
    failure, image, upstream = FAILURES[how], Image.make(how), mirrors.upstream
    upstream.add("app", "1.0", image)
    for name in (mirrors.fresh, mirrors.stale):
        assert (await pull(http, f"/v2/{name}/app", "1.0")).content == image.raw
    upstream.failure = failure.script
    if failure.url:
        mirrors.move(failure.url)
    asked = len(upstream.requests)

    for reference in ("1.0", str(Digest.of(image.raw))):
        fresh = await pull(http, f"/v2/{mirrors.fresh}/app", reference)
        assert (fresh.status_code, fresh.content) == (200, image.raw)
        assert "warning" not in fresh.headers
    assert len(upstream.requests) == asked

    stale, absent = await asyncio.gather(
        http.get(f"/v2/{mirrors.stale}/app/manifests/1.0", timeout=PATIENCE_S),
        http.get(f"/v2/{mirrors.fresh}/app/manifests/2.0", timeout=PATIENCE_S),
    )
    if failure.unknown:
        assert (stale.status_code, codes(stale)) == (404, ["MANIFEST_UNKNOWN"])
    else:
        assert (stale.status_code, stale.content) == (200, image.raw)
        assert stale.headers["warning"].startswith('299 - "from the cache: ')
    assert (absent.status_code, codes(absent)) == (failure.status, [failure.code])
    if failure.status == 503:
        assert int(absent.headers["retry-after"]) > 0
    if failure.wait:
        assert abs(int(absent.headers["retry-after"]) - int(failure.wait)) < 100
    for found in (stale, absent):
        assert "secret-word" not in f"{found.text}{found.headers}"
    by_digest = await pull(http, f"/v2/{mirrors.stale}/app", str(Digest.of(image.raw)))
    assert by_digest.content == image.raw


BLOB_FAILURES = {
    "401": (refusal("401 Unauthorized"), 404, "BLOB_UNKNOWN"),
    "403": (refusal("403 Forbidden"), 404, "BLOB_UNKNOWN"),
    "404": (refusal("404 Not Found"), 404, "BLOB_UNKNOWN"),
    "429": (refusal("429 Too Many Requests", "Retry-After: 60"), 503, "UNAVAILABLE"),
    "500": (refusal("500 Internal Server Error"), 503, "UNAVAILABLE"),
    "stall": (stall(), 503, "UNAVAILABLE"),
    "web page": (refusal("200 OK", "Content-Type: text/html"), 503, "UNAVAILABLE"),
    "gzip bomb": (
        say(response(gzip.compress(bytes(50 << 20)), "Content-Encoding: gzip")),
        503,
        "UNAVAILABLE",
    ),
    "redirect to the address of cloud metadata": (
        refusal("307 There", "Location: http://169.254.169.254/latest"),
        503,
        "UNAVAILABLE",
    ),
    "realm of a stranger": (
        refusal("401", 'WWW-Authenticate: Bearer realm="http://169.254.169.254/token"'),
        503,
        "UNAVAILABLE",
    ),
    "circle": (refusal("307 There", "Location: ?again"), 503, "UNAVAILABLE"),
}


@pytest.mark.parametrize("how", BLOB_FAILURES)
async def test_an_upstream_without_the_blob(
    mirrors: Mirrors, http: httpx.AsyncClient, how: str
) -> None:
    """Nothing is stored, and the next client gets the blob."""
    script, status, code = BLOB_FAILURES[how]
    image, upstream = Image.make(how), mirrors.upstream
    upstream.add("app", "1.0", image)
    base = f"/v2/{mirrors.fresh}/app"
    assert (await http.get(f"{base}/manifests/1.0")).status_code == 200
    upstream.failure, upstream.failing = script, "/blobs/"
    path = f"{base}/blobs/{Digest.of(image.layer)}"
    found = await http.get(path, timeout=PATIENCE_S)
    assert (found.status_code, codes(found)) == (status, [code])
    assert "secret-word" not in f"{found.text}{found.headers}"
    mirrors.repair()
    assert (await pull(http, base, "1.0")).content == image.raw
    assert (await http.get(path)).content == image.layer


SIZE = 300_000
LIES: dict[str, Script] = {
    "other bytes": say(response(b"x" * SIZE)),
    "last byte wrong": say(response(b"b" * (SIZE - 1) + b"x")),
    "short": say(response(b"b" * (SIZE - 1))),
    "shorter than stated": say(response(b"b" * (SIZE - 9), f"Content-Length: {SIZE}")),
    "longer": say(response(b"b" * (SIZE + 1))),
    "endless": drip(response(b"", f"Content-Length: {1 << 40}"), bytes(1 << 20), 0.001),
    "endless chunks": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nwrong\r\n" * 10_000, 0.001
    ),
}


@pytest.mark.parametrize("how", LIES)
async def test_a_lying_upstream(mirrors: Mirrors, http: httpx.AsyncClient, how: str) -> None:
    """No client gets a complete response, and the next one gets the blob."""
    image = Image.of(how.encode(), b"b" * SIZE)
    mirrors.upstream.add("app", "1.0", image)
    base = f"/v2/{mirrors.fresh}/app"
    path = f"{base}/blobs/{Digest.of(image.layer)}"
    assert (await http.get(f"{base}/manifests/1.0")).status_code == 200
    mirrors.upstream.failure, mirrors.upstream.failing = LIES[how], str(Digest.of(image.layer))
    try:
        found = await http.get(path)
    except httpx.RemoteProtocolError:
        pass  # cut
    else:
        assert (found.status_code, codes(found)) == (503, ["UNAVAILABLE"])
    mirrors.repair()
    assert (await http.get(path)).content == image.layer


async def test_other_bytes_than_the_manifest(mirrors: Mirrors, http: httpx.AsyncClient) -> None:
    image, upstream = Image.make("true"), mirrors.upstream
    upstream.add("app", "1.0", image)
    digest = Digest.of(image.raw)
    lie = response(
        Image.make("other").raw, f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest}"
    )
    upstream.failure, upstream.failing = say(lie), f"/manifests/{digest}"
    for reference in ("1.0", str(digest)):
        found = await http.get(f"/v2/{mirrors.fresh}/app/manifests/{reference}")
        assert (found.status_code, codes(found)) == (503, ["UNAVAILABLE"])
    upstream.failure = None
    assert (await pull(http, f"/v2/{mirrors.fresh}/app", "1.0")).content == image.raw


async def test_a_refused_password_is_tried_once(mirrors: Mirrors, http: httpx.AsyncClient) -> None:
    """Because registries lock accounts after repeated failures."""
    challenge = 'WWW-Authenticate: Basic realm="registry"'
    mirrors.upstream.failure = refusal("401 Unauthorized", challenge)
    (mirrors.place.mirror.data / "password").write_text("wrong\n")
    mirrors.place.moorage(
        *("mirror", "set", mirrors.fresh, "--username", "u", "--password-file", "password")
    )
    for number in range(5):
        found = await http.get(f"/v2/{mirrors.fresh}/app/manifests/{number}")
        assert found.status_code in {404, 503}
    assert len(mirrors.upstream.requests) == 2  # without the password, and with it


async def test_a_fallback_is_used_while_the_upstream_is_down(
    mirrors: Mirrors, http: httpx.AsyncClient
) -> None:
    image, later = Image.make("before"), Image.make("later")
    mirrors.upstream.add("app", "1.0", image)
    (mirrors.place.mirror.data / "password").write_text("secret-word\n")
    async with FakeUpstream().run() as other:
        other.add("app", "2.0", later)
        options = ["--fallback-upstream", other.url, "--negative-ttl", "0s", "--username", "u"]
        options += ["--password-file", "password"]
        mirrors.place.moorage("mirror", "set", mirrors.stale, *options)
        base = f"/v2/{mirrors.stale}/app"
        assert (await pull(http, base, "1.0")).content == image.raw
        assert (await http.get(f"{base}/manifests/2.0")).status_code == 404
        assert other.requests == []
        mirrors.move("http://127.0.0.1:1")
        found = await pull(http, base, "2.0")
        assert (found.content, found.headers.get("warning")) == (later.raw, None)
        # The fallback does not have this tag, which proves nothing.
        stale = await pull(http, base, "1.0")
        assert stale.content == image.raw
        assert stale.headers["warning"].startswith('299 - "from the cache: ')
        assert not any("authorization" in head.lower() for head in other.heads)
