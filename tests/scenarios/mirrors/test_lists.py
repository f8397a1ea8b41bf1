"""Tags and referrers of mirrored repositories, and the content that they lead to."""

import json

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import PREFIX, Image, Place, push, push_index
from tests.scenarios.mirrors.test_pulls import fail, new_name, pull
from tests.support.kit import Kit, codes, index_manifest

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SBOM = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature"


async def list_tags(http: httpx.AsyncClient, name: str, **query: object) -> httpx.Response:
    return await http.get(f"/v2/{PREFIX}/{name}/tags/list", params=query)  # type: ignore[arg-type]


async def push_referrer(source: Kit, name: str, subject: Image, kind: str, text: str) -> bytes:
    """Push an artifact that refers to an image, and return its manifest."""
    config, layer = b"{}", text.encode()
    for data in (config, layer):
        await source.push_blob(name, data)
    media_type = "application/vnd.oci.image.manifest.v1+json"
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": kind,
            "config": describe("application/vnd.oci.empty.v1+json", config),
            "layers": [describe("text/plain", layer)],
            "subject": describe(media_type, subject.raw),
            "annotations": {"text": text},
        }
    ).encode()
    pushed = await source.put_manifest(name, str(Digest.of(raw)), raw)
    assert pushed.status_code == 201, pushed.text
    return raw


def describe(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


async def test_tags_of_the_upstream_are_listed_with_those_that_are_cached(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("tags")
    for tag in ("1.0", "1.1", "2.0", "latest"):
        await push(source, name, tag, image)
    place.requests()
    found = await list_tags(http, name)
    assert found.json() == {"name": f"{PREFIX}/{name}", "tags": ["1.0", "1.1", "2.0", "latest"]}
    assert (await list_tags(http, name)).content == found.content
    assert len(place.requests()) == 1
    seen: list[str] = []
    page = await list_tags(http, name, n=3)
    while True:
        seen += page.json()["tags"]
        if "link" not in page.headers:
            break
        page = await http.get(page.headers["link"].partition(">")[0].removeprefix("<"))
    assert seen == ["1.0", "1.1", "2.0", "latest"]
    assert place.requests() == []
    assert name not in place.moorage("repo", "list")  # a list stores nothing


async def test_only_cached_tags_are_listed_while_the_upstream_is_down(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("down")
    for tag in ("1.0", "2.0"):
        await push(source, name, tag, image)
    await pull(http, f"/v2/{PREFIX}/{name}", "1.0")
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        assert (await list_tags(http, name)).json()["tags"] == ["1.0", "2.0"]
        fail(place, "refused")
        found = await list_tags(http, name)
        assert found.json()["tags"] == ["1.0"]
        assert found.headers["warning"].startswith('299 - "only what is cached: cannot reach')
        other = await list_tags(http, new_name())
        assert (other.status_code, codes(other)) == (503, ["UNAVAILABLE"])
        assert int(other.headers["retry-after"]) > 0
        place.proxy.accept()


async def test_a_repository_that_nobody_has_is_asked_for_once(
    place: Place, http: httpx.AsyncClient
) -> None:
    name = new_name()
    place.requests()
    for _ in range(2):
        found = await list_tags(http, name)
        assert (found.status_code, codes(found)) == (404, ["NAME_UNKNOWN"])
    assert place.requests() == [f"GET /v2/{name}/tags/list"]


async def test_a_changed_list_is_seen_after_the_ttl(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("changed")
    await push(source, name, "1.0", image)
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        assert (await list_tags(http, name)).json()["tags"] == ["1.0"]
        await push(source, name, "2.0", image)
        assert (await list_tags(http, name)).json()["tags"] == ["1.0", "2.0"]


async def test_referrers_of_the_upstream_come_along(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("signed")
    await push(source, name, "1.0", image)
    sbom = await push_referrer(source, name, image, SBOM, "a bill of materials")
    signature = await push_referrer(source, name, image, SIGNATURE, "a signature")
    path = f"/v2/{PREFIX}/{name}/referrers/{Digest.of(image.raw)}"
    place.requests()
    found = await http.get(path)
    entries = found.json()["manifests"]
    assert found.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    wanted = sorted(str(Digest.of(each)) for each in (sbom, signature))
    assert [each["digest"] for each in entries] == wanted
    assert {each["artifactType"] for each in entries} == {SBOM, SIGNATURE}
    direct = (await source.http.get(path.replace(f"/{PREFIX}/", "/"))).json()["manifests"]
    assert entries == direct
    some = await http.get(path, params={"artifactType": SBOM})
    assert [each["digest"] for each in some.json()["manifests"]] == [str(Digest.of(sbom))]
    assert some.headers["oci-filters-applied"] == "artifactType"
    for digest in wanted:
        await pull(http, f"/v2/{PREFIX}/{name}", digest)
    assert (await http.get(path)).json()["manifests"] == entries


async def test_cached_referrers_are_listed_while_the_upstream_is_down(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("signed, down")
    await push(source, name, "1.0", image)
    sbom = await push_referrer(source, name, image, SBOM, "cached")
    await push_referrer(source, name, image, SIGNATURE, "not cached")
    base = f"/v2/{PREFIX}/{name}"
    await pull(http, base, str(Digest.of(sbom)))
    fail(place, "refused")
    found = await http.get(f"{base}/referrers/{Digest.of(image.raw)}")
    assert [each["digest"] for each in found.json()["manifests"]] == [str(Digest.of(sbom))]
    assert "only what is cached" in found.headers["warning"]
    other = await http.get(f"{base}/referrers/{Digest.of(b'unknown')}")
    assert (other.status_code, codes(other)) == (503, ["UNAVAILABLE"])


async def test_tags_of_cosign_and_of_the_referrers_schema_come_through(
    source: Kit, http: httpx.AsyncClient
) -> None:
    """Clients of registries without referrers find signatures by tags that contain the digest."""
    name, image = new_name(), Image.make("by tag")
    await push(source, name, "1.0", image)
    fallback = f"sha256-{Digest.of(image.raw).hex}"
    signatures = {suffix: Image.make(suffix) for suffix in (".sig", ".att", ".sbom")}
    for suffix, each in signatures.items():
        await push(source, name, fallback + suffix, each)
    raw = index_manifest([each.raw for each in signatures.values()])
    assert (await source.put_manifest(name, fallback, raw)).status_code == 201
    base = f"/v2/{PREFIX}/{name}"
    for suffix, each in signatures.items():
        assert (await pull(http, base, fallback + suffix)).content == each.raw
    assert (await http.get(f"{base}/manifests/{fallback}")).content == raw
    assert fallback in (await list_tags(http, name)).json()["tags"]


async def test_an_index_has_the_same_bytes_with_absent_children(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    """Also while the upstream is down, and after one of the children was fetched."""
    name, images = new_name(), [Image.make(text) for text in ("amd64", "arm64", "s390x")]
    raw = await push_index(source, name, "1.0", images)
    base = f"/v2/{PREFIX}/{name}"
    for reference in ("1.0", str(Digest.of(raw))):
        found = await http.get(f"{base}/manifests/{reference}")
        assert (found.content, found.headers["docker-content-digest"]) == (raw, str(Digest.of(raw)))
    await pull(http, base, str(Digest.of(images[1].raw)))
    fail(place, "refused")
    assert (await http.get(f"{base}/manifests/{Digest.of(raw)}")).content == raw
    assert (await pull(http, base, str(Digest.of(images[1].raw)))).content == images[1].raw


async def test_the_catalog_has_only_what_is_cached(source: Kit, http: httpx.AsyncClient) -> None:
    name, other, image = new_name(), new_name(), Image.make("catalog")
    for each in (name, other):
        await push(source, each, "1.0", image)
    await pull(http, f"/v2/{PREFIX}/{name}", "1.0")
    listed = (await http.get("/v2/_catalog", params={"n": 1000})).json()["repositories"]
    assert f"{PREFIX}/{name}" in listed
    assert f"{PREFIX}/{other}" not in listed
