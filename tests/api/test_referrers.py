"""Endpoint 12: list referrers."""

import json
from typing import Any

import httpx
import pytest

from registry.oci.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from registry.oci.referrers import fallback_tag
from registry.services.content import referrers
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import CONFIG, codes, descriptor, image_manifest, index_manifest

pytestmark = pytest.mark.anyio
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NAME = "team/app"
EMPTY = b"{}"
SUBJECT = image_manifest(EMPTY, [])
DIGEST = Digest.of(SUBJECT)
OF_SUBJECT = {"subject": descriptor(SUBJECT, OCI_MANIFEST)}
SBOM = "application/vnd.example.sbom.v1+json"
MIB = 1024 * 1024

Entry = dict[str, Any]


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def ready(api: Api) -> Api:
    await api.push_blob(NAME, EMPTY)
    return api


def image(**more: Any) -> bytes:
    return image_manifest(EMPTY, [], **more)


def path(digest: Digest | str = DIGEST, name: str = NAME) -> str:
    return f"/v2/{name}/referrers/{digest}"


async def push(api: Api, raw: bytes, reference: object = None) -> Digest:
    digest = Digest.of(raw)
    answer = await api.put_manifest(NAME, str(reference or digest), raw)
    assert answer.status_code == 201, answer.text
    return digest


async def get(api: Api, target: str, **params: str) -> list[Entry]:
    """Return the entries of a response, which must be an exact image index."""
    answer = await api.http.get(target, params=params)
    return read(answer)


def read(answer: httpx.Response) -> list[Entry]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert answer.headers["Content-Length"] == str(len(answer.content))
    index = answer.json()
    assert index.keys() == {"schemaVersion", "mediaType", "manifests"}
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    assert isinstance(index["manifests"], list)
    return index["manifests"]


async def test_12_lists_what_has_the_subject(ready: Api) -> None:
    raws = [
        image(**OF_SUBJECT, artifactType=SBOM, annotations={"a": "b", "ä": "\U0001f40b"}),
        image(**OF_SUBJECT, artifactType="", annotations={"n": "1"}),
        image(**OF_SUBJECT, mediaType=DOCKER_MANIFEST),
        index_manifest([], **OF_SUBJECT, artifactType=SBOM, annotations={"c": ""}),
        index_manifest([], **OF_SUBJECT),
    ]
    await push(ready, image(artifactType=SBOM))
    await push(ready, image(subject=descriptor(b"other", OCI_MANIFEST)))
    for raw in raws:
        await push(ready, raw)
    entries = await get(ready, path())
    expected = []
    for raw in raws:
        manifest = json.loads(raw)
        entry = descriptor(raw, manifest["mediaType"])
        entry["annotations"] = manifest.get("annotations", {})
        if manifest.get("artifactType"):
            entry["artifactType"] = SBOM
        elif "config" in manifest:
            entry["artifactType"] = CONFIG
        expected.append(entry)
    assert [{"annotations": {}} | entry for entry in entries] == sorted(
        expected, key=lambda entry: str(entry["digest"])
    )


async def test_12_is_an_empty_index_for_what_is_not_there(ready: Api) -> None:
    await push(ready, image(**OF_SUBJECT))
    for target in (path(Digest.of(b"absent")), path(name="nowhere"), path(name="team")):
        answer = await ready.http.get(target)
        assert read(answer) == []
        assert b'"manifests":[]' in answer.content
        assert "OCI-Filters-Applied" not in answer.headers
        assert await get(ready, target, artifactType=SBOM) == []


async def test_12_the_subject_need_not_be_there(ready: Api) -> None:
    digest = await push(ready, image(**OF_SUBJECT))
    for _ in range(2):
        assert [entry["digest"] for entry in await get(ready, path())] == [str(digest)]
        await push(ready, SUBJECT)


@SQLITE
async def test_12_what_is_no_digest_or_name_is_400(ready: Api) -> None:
    for text in ("latest", "sha256:", "sha256:" + 63 * "a", "md5:" + 32 * "a", "sha256-" + 64 * "a",
                 "sha256:" + 64 * "A", "sha512:" + 64 * "a"):  # fmt: skip
        answer = await ready.http.get(path(text))
        assert (answer.status_code, codes(answer)) == (400, ["DIGEST_INVALID"]), text
    answer = await ready.http.get(path(name="Team"))
    assert (answer.status_code, codes(answer)) == (400, ["NAME_INVALID"])


async def test_12_a_subject_of_another_algorithm_is_another_subject(ready: Api) -> None:
    long = Digest.of(SUBJECT, "sha512")
    subject = {**descriptor(SUBJECT, OCI_MANIFEST), "digest": str(long)}
    digest = await push(ready, image(subject=subject))
    assert [entry["digest"] for entry in await get(ready, path(long))] == [str(digest)]
    assert await get(ready, path()) == []


async def test_12_shows_a_push_and_a_delete_at_once(ready: Api) -> None:
    raw = image(**OF_SUBJECT)
    for _ in range(3):
        digest = await push(ready, raw)
        assert len(await get(ready, path())) == 1
        assert (await ready.http.delete(f"/v2/{NAME}/manifests/{digest}")).status_code == 202
        assert await get(ready, path()) == []


async def test_12_of_another_repository_are_not_listed(ready: Api) -> None:
    await push(ready, image(**OF_SUBJECT))
    await ready.push_blob("other", EMPTY)
    await ready.put_manifest("other", "t", image(**OF_SUBJECT, artifactType=SBOM))
    [entry] = await get(ready, path())
    assert entry["artifactType"] == CONFIG
    [entry] = await get(ready, path(name="other"))
    assert entry["artifactType"] == SBOM


# Filter by artifact type


async def test_12_filters_by_the_effective_type(ready: Api) -> None:
    odd = 'Application/x+y; q="ü" & more#?%'
    pushed = {
        SBOM: await push(ready, image(**OF_SUBJECT, artifactType=SBOM)),
        CONFIG: await push(ready, image(**OF_SUBJECT)),
        odd: await push(ready, image(**OF_SUBJECT, artifactType=odd)),
    }
    await push(ready, index_manifest([], **OF_SUBJECT))
    for artifact_type, digest in pushed.items():
        answer = await ready.http.get(path(), params={"artifactType": artifact_type})
        assert [entry["digest"] for entry in read(answer)] == [str(digest)]
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert "Link" not in answer.headers
    for absent in (SBOM.upper(), SBOM[:-1], SBOM + " ", OCI_INDEX, "%", "'", "a" * 5000):
        answer = await ready.http.get(path(), params={"artifactType": absent})
        assert read(answer) == []
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"


async def test_12_says_that_it_filtered_only_when_asked(ready: Api) -> None:
    await push(ready, image(**OF_SUBJECT))
    for query in ("", "?artifactType=", "?artifacttype=x", "?last=", "?foo=bar"):
        answer = await ready.http.get(path() + query)
        assert len(read(answer)) == 1
        assert "OCI-Filters-Applied" not in answer.headers


async def test_12_a_filter_may_be_what_no_type_can_be(ready: Api) -> None:
    for artifact_type in (SBOM, "a", "a\ufffd"):
        await push(ready, image(**OF_SUBJECT, artifactType=artifact_type))
    for text in ("a%00", "%00", f"{SBOM}%00x", "%ED%A0%80", "%FF"):
        answer = await ready.http.get(f"{path()}?artifactType={text}")
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert [entry for entry in read(answer) if "\ufffd" not in entry["artifactType"]] == []
    for last in ("%00", "%ED%A0%80", "sha256%00"):
        assert (await ready.http.get(f"{path()}?last={last}")).status_code == 200


# Pages


async def walk(api: Api, query: str = "") -> list[list[Entry]]:
    """Follow the links and return all pages."""
    pages = []
    target = path() + query
    while True:
        answer = await api.http.get(target)
        assert len(answer.content) < 4 * MIB
        pages.append(read(answer))
        assert ("OCI-Filters-Applied" in answer.headers) == bool(query)
        link = answer.headers.get("Link")
        if link is None:
            return pages
        assert link.startswith(f"<{path()}?")
        assert link.endswith('>; rel="next"')
        target = link[1:].partition(">")[0]


async def test_12_a_page_ends_before_four_mebibytes(ready: Api) -> None:
    pushed = []
    for n in range(6):
        annotations = {"n": str(n), "padding": "x" * (MIB - 1000)}
        artifact_type = SBOM if n else CONFIG
        raw = image(**OF_SUBJECT, artifactType=artifact_type, annotations=annotations)
        pushed.append((str(await push(ready, raw)), artifact_type))
    pushed.sort()
    pages = await walk(ready)
    assert [len(page) for page in pages] == [3, 3]  # four entries would be close to 4 MiB
    assert [(entry["digest"], entry["artifactType"]) for page in pages for entry in page] == pushed
    pages = await walk(ready, f"?artifactType={SBOM.replace('+', '%2B')}")
    assert [len(page) for page in pages] == [3, 2]
    found = [entry["digest"] for page in pages for entry in page]
    assert found == [digest for digest, artifact_type in pushed if artifact_type == SBOM]


async def test_12_everything_below_is_one_page(ready: Api) -> None:
    for n in range(30):
        await push(ready, image(**OF_SUBJECT, annotations={"n": str(n), "x": "y" * 100_000}))
    assert [len(page) for page in await walk(ready)] == [30]


@SQLITE
async def test_12_a_manifest_of_the_largest_size_fits_a_page(ready: Api) -> None:
    padding = "ä\n" * ((4 * MIB - 1200) // 4)
    fields = json.loads(image(**OF_SUBJECT, annotations={"padding": padding}))
    raw = json.dumps(fields, ensure_ascii=False).encode()
    assert 4 * MIB - 2000 < len(raw) <= 4 * MIB
    await push(ready, raw)
    await push(ready, image(**OF_SUBJECT))
    pages = await walk(ready)
    assert sorted(len(page) for page in pages) == [1, 1]
    assert padding in [entry["annotations"].get("padding") for page in pages for entry in page]


async def test_12_pages_hold_every_referrer_once(
    ready: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every alignment of rows and pages gives complete pages."""
    own = [image(**OF_SUBJECT, annotations={"n": str(n)}) for n in range(9)]
    expected = sorted([str(await push(ready, raw)) for raw in own])
    await push(ready, index_manifest(own), fallback_tag(DIGEST))
    for rows in (1, 2, 4, 9, 1000):
        for size in (1, 700, 1500, 4000, MIB):
            monkeypatch.setattr(referrers, "_ROWS", rows)
            monkeypatch.setattr(referrers, "PAGE_BYTES", size)
            pages = await walk(ready)
            assert [entry["digest"] for page in pages for entry in page] == expected, (rows, size)
            assert all(pages)
            pages = await walk(ready, f"?artifactType={CONFIG.replace('+', '%2B')}")
            assert [entry["digest"] for page in pages for entry in page] == expected, (rows, size)


# Fallback tag indexes, and tags that only look like fallback tags


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_12_entries_of_a_fallback_tag_index_count(ready: Api, algorithm: str) -> None:
    """Each entry is listed once with data from its manifest; data in the index is ignored."""
    subject = Digest.of(SUBJECT, algorithm)
    own = {"subject": {**descriptor(SUBJECT, OCI_MANIFEST), "digest": str(subject)}}
    plain, listed = image(**own), image(**own, artifactType=SBOM, annotations={"kept": "here"})
    for raw in (listed, plain):
        await push(ready, raw)
    lie = {"mediaType": DOCKER_MANIFEST, "size": 7, "artifactType": "application/lie"}
    entries = [
        {**descriptor(listed), **lie, "annotations": {"a": "b"}},
        descriptor(plain, OCI_MANIFEST),
        descriptor(plain, OCI_MANIFEST),
    ]
    index = json.dumps({**json.loads(index_manifest([])), "manifests": entries}).encode()
    await push(ready, index, f"{algorithm}-{subject.hex[:64]}")
    found = {entry["digest"]: entry for entry in await get(ready, path(subject))}
    assert len(found) == 2
    assert found[str(Digest.of(listed))] == {
        **descriptor(listed, OCI_MANIFEST),
        "artifactType": SBOM,
        "annotations": {"kept": "here"},
    }
    assert found[str(Digest.of(plain))]["artifactType"] == CONFIG
    assert [e["digest"] for e in await get(ready, path(subject), artifactType=SBOM)] == [
        str(Digest.of(listed))
    ]
    assert await get(ready, path(subject), artifactType="application/lie") == []
    assert await get(ready, path(Digest.of(b"other", algorithm))) == []


async def test_12_the_form_of_a_tag_makes_nothing_a_referrer(ready: Api) -> None:
    """`cosign copy` and oc-mirror set a tag `sha256-<hex>` for every digest that they copy."""
    child, other = image(), image(annotations={"n": "2"})
    index = index_manifest([child, other])
    for raw in (child, other, index):
        await push(ready, raw, fallback_tag(Digest.of(raw)))
    for raw in (child, other, index):
        assert await get(ready, path(Digest.of(raw))) == []
    # Entries with another subject or without one are ignored next to referrers.
    mine = await push(ready, image(**OF_SUBJECT))
    listing = index_manifest([image(**OF_SUBJECT), child, index])
    await push(ready, listing, fallback_tag(DIGEST))
    assert [entry["digest"] for entry in await get(ready, path())] == [str(mine)]


async def test_12_a_fallback_entry_is_gone_with_its_manifest(ready: Api) -> None:
    raws = [image(**OF_SUBJECT, annotations={"n": str(n)}) for n in range(3)]
    digests = [await push(ready, raw) for raw in raws]
    await push(ready, index_manifest(raws), fallback_tag(DIGEST))
    while digests:
        assert {e["digest"] for e in await get(ready, path())} == {str(d) for d in digests}
        answer = await ready.http.delete(f"/v2/{NAME}/manifests/{digests.pop()}")
        assert answer.status_code == 202
    assert await get(ready, path()) == []
    digest = await push(ready, raws[0])
    assert [entry["digest"] for entry in await get(ready, path())] == [str(digest)]


async def test_12_a_fallback_tag_of_something_else_says_nothing(ready: Api) -> None:
    digest = await push(ready, image(**OF_SUBJECT))
    await push(ready, image(), fallback_tag(DIGEST))
    assert [entry["digest"] for entry in await get(ready, path())] == [str(digest)]
