"""Pulls through a mirror: the ways in, the requests to the upstream, and its failures."""

import asyncio
import uuid

import httpx
import pytest

from registry.services.mirrors.manifests import SEEN_S
from storage.digest import Digest
from tests.scenarios.mirrors.conftest import HOST, PREFIX, Image, Place, push, push_index
from tests.support.kit import Kit, codes

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

CLIENTS = 50


def new_name() -> str:
    return f"team/app-{uuid.uuid4().hex[:8]}"


async def pull(http: httpx.AsyncClient, base: str, tag: str, query: str = "") -> httpx.Response:
    """Pull an image as clients do, and return the response with the manifest."""
    found = await http.get(f"{base}/manifests/{tag}{query}")
    if found.status_code != 200:
        return found
    manifest = found.json()
    for part in (manifest["config"], *manifest["layers"]):
        blob = await http.get(f"{base}/blobs/{part['digest']}{query}")
        assert blob.status_code == 200, blob.text
        assert str(Digest.of(blob.content)) == part["digest"]
    return found


# The ways in


@pytest.mark.parametrize(
    ("base", "query"),
    [
        ("/v2/{name}", f"?ns={HOST}"),
        ("/v2/{name}", f"?ns={HOST.upper()}"),
        (f"/{PREFIX}/v2/{{name}}", ""),
        (f"/v2/{PREFIX}/{{name}}", ""),
        (f"/v2/{PREFIX}/{{name}}", f"?ns={HOST}"),
    ],
    ids=["ns", "NS", "path before v2", "prefix", "prefix and ns"],
)
async def test_an_image_can_be_pulled_in_every_way(
    place: Place, source: Kit, http: httpx.AsyncClient, base: str, query: str
) -> None:
    name, image = new_name(), Image.make(query + base)
    await push(source, name, "1.0", image)
    found = await pull(http, base.format(name=name), "1.0", query)
    assert found.content == image.raw
    assert found.headers["docker-content-digest"] == str(Digest.of(image.raw))
    assert found.headers.get("oci-namespace", "").lower() == (HOST if query else "")
    stored = place.moorage("repo", "list").split()
    assert f"{PREFIX}/{name}" in stored
    assert name not in stored


async def test_the_ping_works_below_the_prefix(http: httpx.AsyncClient) -> None:
    assert (await http.get(f"/{PREFIX}/v2/")).status_code == 200
    assert (await http.get("/other/v2/")).status_code == 404


async def test_an_unknown_ns_is_404_and_never_our_own_repository(
    place: Place, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("own")
    await push(Kit(http), name, "1.0", image)
    found = await http.get(f"/v2/{name}/manifests/1.0?ns=other.example")
    assert (found.status_code, codes(found)) == (404, ["NAME_UNKNOWN"])
    own = await http.get(f"/v2/{name}/manifests/1.0?ns=127.0.0.1:{place.mirror.port}")
    assert own.content == image.raw


async def test_pushes_below_the_prefix_are_refused(http: httpx.AsyncClient) -> None:
    for path in (f"/v2/{PREFIX}/a/blobs/uploads/", f"/{PREFIX}/v2/a/blobs/uploads/"):
        refused = await http.post(path)
        assert (refused.status_code, codes(refused)) == (403, ["DENIED"])
        assert "another prefix" in refused.text


# What the upstream is asked


async def test_a_cached_image_needs_no_request_within_the_ttl(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("cached")
    await push(source, name, "1.0", image)
    base = f"/v2/{PREFIX}/{name}"
    place.requests()
    await pull(http, base, "1.0")
    assert sorted(place.requests()) == sorted(
        [
            f"HEAD /v2/{name}/manifests/1.0",
            f"GET /v2/{name}/manifests/{Digest.of(image.raw)}",
            f"GET /v2/{name}/blobs/{Digest.of(image.config)}",
            f"GET /v2/{name}/blobs/{Digest.of(image.layer)}",
        ]
    )
    for _ in range(3):
        await pull(http, base, "1.0")
        await pull(http, base, str(Digest.of(image.raw)))
    assert place.requests() == []


async def test_a_tag_is_looked_up_with_one_head_after_its_ttl(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("first")
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    await pull(http, base, "1.0")
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        place.requests()
        assert (await pull(http, base, "1.0")).content == image.raw
        assert place.requests() == [f"HEAD /v2/{name}/manifests/1.0"]
        moved = Image.make("second")
        await push(source, name, "1.0", moved)
        assert (await pull(http, base, "1.0")).content == moved.raw


async def test_an_index_keeps_its_bytes_and_other_platforms_are_not_fetched(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, images = new_name(), [Image.make("amd64"), Image.make("arm64")]
    raw = await push_index(source, name, "1.0", images)
    base = f"/v2/{PREFIX}/{name}"
    place.requests()
    assert (await http.get(f"{base}/manifests/1.0")).content == raw
    await pull(http, base, str(Digest.of(images[0].raw)))
    asked = " ".join(place.requests())
    assert str(Digest.of(images[0].raw)) in asked
    assert str(Digest.of(images[1].raw)) not in asked
    assert str(Digest.of(images[1].layer)) not in asked


async def test_many_cold_clients_cause_one_request_for_each_thing(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("crowd", 2_000_000)
    await push(source, name, "1.0", image)
    place.requests()
    base = f"/v2/{PREFIX}/{name}"
    pulls = await asyncio.gather(*(pull(http, base, "1.0") for _ in range(CLIENTS)))
    assert all(each.content == image.raw for each in pulls)
    asked = place.requests()
    assert len(asked) == len(set(asked)) == 4, asked


async def test_unknown_content_is_asked_for_once(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = new_name()
    await push(source, name, "1.0", Image.make("known"))
    place.requests()
    for _ in range(3):
        found = await http.get(f"/v2/{PREFIX}/{name}/manifests/2.0")
        assert (found.status_code, codes(found)) == (404, ["MANIFEST_UNKNOWN"])
    assert place.requests() == [f"HEAD /v2/{name}/manifests/2.0"]


async def test_denied_patterns_are_not_mirrored(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = new_name()
    await push(source, name, "1.0", Image.make("denied"))
    with place.changed(["--deny", "team/**"], ["--deny", ""]):
        place.requests()
        found = await http.get(f"/v2/{PREFIX}/{name}/manifests/1.0")
        assert found.status_code == 404
        assert place.requests() == []
    assert (await http.get(f"/v2/{PREFIX}/{name}/manifests/1.0")).status_code == 200


async def test_a_tag_that_is_immutable_here_stays(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("first")
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    await pull(http, base, "1.0")
    place.moorage("immutable", "add", f"{PREFIX}/{name}", "1.*")
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        await push(source, name, "1.0", Image.make("moved"))
        assert (await pull(http, base, "1.0")).content == image.raw


async def test_an_option_that_cannot_be_used_is_503(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = new_name()
    await push(source, name, "1.0", Image.make("unusable"))
    with place.changed(["--upstream-ca-file", "missing.pem"], ["--upstream-ca-file", ""]):
        found = await http.get(f"/v2/{PREFIX}/{name}/manifests/1.0")
        assert (found.status_code, codes(found)) == (503, ["UNAVAILABLE"])
        assert "missing.pem" in found.text
    assert (await http.get(f"/v2/{PREFIX}/{name}/manifests/1.0")).status_code == 200


# An upstream that fails


@pytest.fixture(params=["refused", "stalled"])
def failing(request: pytest.FixtureRequest, place: Place) -> str:
    """Return how the upstream fails from `fail` on."""
    del place
    return str(request.param)


def fail(place: Place, how: str) -> None:
    place.proxy.cut()
    (place.proxy.refuse if how == "refused" else place.proxy.stall)()


async def test_cached_content_is_served_without_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient, failing: str
) -> None:
    name, image = new_name(), Image.make("kept")
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    await pull(http, base, "1.0")
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        fail(place, failing)
        found = await pull(http, base, "1.0")
        assert found.content == image.raw
        assert found.headers["warning"].startswith('299 - "from the cache: ')
        # The upstream is not asked, so there is nothing to warn of.
        assert "warning" not in (await pull(http, base, str(Digest.of(image.raw)))).headers


async def test_a_tag_is_not_served_for_longer_than_stale_for(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("old")
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    await pull(http, base, "1.0")
    with place.changed(
        ["--tag-ttl", "0s", "--stale-for", "0s"], ["--tag-ttl", "1h", "--stale-for", "30d"]
    ):
        fail(place, "refused")
        found = await http.get(f"{base}/manifests/1.0")
        assert (found.status_code, codes(found)) == (503, ["UNAVAILABLE"])


async def test_content_that_is_not_cached_is_503_without_the_upstream(
    place: Place, http: httpx.AsyncClient, failing: str
) -> None:
    fail(place, failing)
    found = await http.get(f"/v2/{PREFIX}/{new_name()}/manifests/1.0")
    assert (found.status_code, codes(found)) == (503, ["UNAVAILABLE"])
    assert int(found.headers["retry-after"]) > 0


async def test_an_incomplete_image_is_404_without_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    """So that the client asks its next registry, instead of failing at the blob."""
    name, image = new_name(), Image.make("partly")
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    assert (await http.get(f"{base}/manifests/1.0")).status_code == 200
    assert (await http.get(f"{base}/blobs/{Digest.of(image.config)}")).status_code == 200
    place.mirror.stop()
    place.mirror.start()  # the mirror must not know that the upstream was reachable
    fail(place, "refused")
    for reference in ("1.0", str(Digest.of(image.raw))):
        found = await http.get(f"{base}/manifests/{reference}")
        assert (found.status_code, codes(found)) == (404, ["MANIFEST_UNKNOWN"])
    place.proxy.accept()


async def test_an_incomplete_image_is_not_repeated_from_memory(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("in memory")
    path = f"/v2/{PREFIX}/{name}/manifests/{Digest.of(image.raw)}"
    await push(source, name, "1.0", image)
    for _ in range(3):
        assert (await http.get(path)).status_code == 200
    fail(place, "refused")
    await asyncio.sleep(SEEN_S + 0.5)
    found = await http.get(path)
    assert (found.status_code, codes(found)) == (404, ["MANIFEST_UNKNOWN"])


async def test_the_mirror_starts_and_serves_what_it_has_without_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("start")
    await push(source, name, "1.0", image)
    await pull(http, f"/v2/{PREFIX}/{name}", "1.0")
    fail(place, "refused")
    place.mirror.stop()
    place.mirror.start()
    assert (await http.get("/readyz")).status_code == 200
    assert (await pull(http, f"/v2/{PREFIX}/{name}", "1.0")).content == image.raw
