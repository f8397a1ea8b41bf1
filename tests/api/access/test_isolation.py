"""Isolation: content and sessions of one repository have no effect and are invisible in others."""

import json

import httpx
import pytest

from registry.auth.policy.principals import ANONYMOUS
from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import (
    codes,
    count_sessions,
    descriptor,
    find_job,
    image_manifest,
    index_manifest,
    list_stored,
    require_created,
    require_session,
)

pytestmark = pytest.mark.anyio

DATA = b"known to one repository alone"
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"nobody pushed this")
HERE, THERE = "team/here", "team/there"
MEMORY = pytest.mark.parametrize("driver", ["memory"])


async def delete_repository(api: Api, name: str) -> None:
    await api.opened.registry.repositories.delete(RepositoryName(name), ANONYMOUS)


async def require_session_unknown(api: Api, location: str, **headers: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        query = {"digest": str(DIGEST)} if method == "PUT" else {}
        answer = await api.http.request(
            method, location, params=query, content=DATA, headers=headers
        )
        assert answer.status_code == 404, method
        assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]
        assert not {"Range", "Location", "Docker-Upload-UUID"} & set(answer.headers)


def refusal(answer: httpx.Response, digest: Digest) -> tuple[int, str]:
    """Return all information in a refusal, without the digest that the client sent."""
    return answer.status_code, answer.text.replace(str(digest), "<digest>")


# Sessions


async def test_5_6_13_14_a_session_is_worth_nothing_in_another_repository(api: Api) -> None:
    await api.push_blob(THERE, b"so that it exists")
    location = await api.start_upload(HERE)
    await api.http.patch(location, content=DATA[:6])
    for name in (THERE, "never/existed", f"{HERE}/below", "team"):
        elsewhere = location.replace(HERE, name)
        await require_session_unknown(api, elsewhere)
        # A wrong offset is also 404 and not 416, which would reveal the session.
        await require_session_unknown(api, elsewhere, **{"Content-Range": "3-31"})
    require_session(await api.http.get(location), 204, HERE, 6)
    done = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA[6:])
    require_created(done, HERE, DIGEST)


async def test_5_a_session_at_work_is_unknown_elsewhere_and_not_busy(api: Api) -> None:
    location = await api.start_upload(HERE)
    exchange = api.speak("PATCH", location)
    await exchange.feed(DATA[:6])
    await require_session_unknown(api, location.replace(HERE, THERE))
    require_session((await exchange.finish(DATA[6:])).answer(), 202, HERE, len(DATA))


@MEMORY
async def test_5_a_session_elsewhere_looks_like_none(api: Api) -> None:
    known = (await api.start_upload(HERE)).rpartition("/")[2]
    none = "00000000-0000-4000-8000-000000000000"
    texts = []
    for upload in (known, none):
        answer = await api.http.get(f"/v2/{THERE}/blobs/uploads/{upload}")
        texts.append(answer.text.replace(upload, "<upload>"))
        assert answer.status_code == 404
    assert texts[0] == texts[1]


# Blobs


@MEMORY
async def test_2_10_a_blob_known_elsewhere_is_unknown_here(api: Api) -> None:
    for algorithm in ("sha256", "sha512"):
        digest = await api.push_blob(THERE, DATA, algorithm)
        await api.http.get(f"/v2/{THERE}/blobs/{digest}")
        for name in (HERE, "never/existed", "team"):
            for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{digest}"'}):
                for method in ("GET", "HEAD", "DELETE"):
                    answers = [
                        await api.http.request(method, f"/v2/{name}/blobs/{d}", headers=headers)
                        for d in (digest, ABSENT)
                    ]
                    assert answers[0].status_code == 404, (name, method, headers)
                    assert refusal(answers[0], digest) == refusal(answers[1], ABSENT)
            exchange = await api.speak("HEAD", f"/v2/{name}/blobs/{digest}").finish()
            assert (exchange.status, exchange.body) == (404, b"")
        assert (await api.http.get(f"/v2/{THERE}/blobs/{digest}")).content == DATA


@MEMORY
async def test_4b_6_knowing_the_digest_does_not_stand_for_the_bytes(api: Api) -> None:
    """A blob is linked only if the client sends all bytes or may pull it elsewhere."""
    await api.push_blob(THERE, DATA)
    query = {"digest": str(DIGEST)}
    whole = await api.http.post(f"/v2/{HERE}/blobs/uploads/", params=query)
    assert codes(whole) == ["DIGEST_INVALID"]
    location = await api.start_upload(HERE)
    ended = await api.http.put(location, params=query, content=DATA[:-1])
    assert codes(ended) == ["DIGEST_INVALID"]
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 404


@MEMORY
async def test_10_a_blob_deleted_here_stays_elsewhere_and_is_not_back_through_it(api: Api) -> None:
    """CVE-2026-35172: a pull in another repository filled a cache that was used for this one."""
    for name in (HERE, THERE):
        await api.push_blob(name, DATA)
        await api.push_blob(name, b"so that it goes on existing")
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 200
    assert (await api.http.delete(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 202
    assert (await api.http.get(f"/v2/{THERE}/blobs/{DIGEST}")).content == DATA
    assert (await api.http.head(f"/v2/{THERE}/blobs/{DIGEST}")).status_code == 200
    for method in ("GET", "HEAD"):
        answer = await api.http.request(method, f"/v2/{HERE}/blobs/{DIGEST}")
        assert answer.status_code == 404


@MEMORY
async def test_11_a_mount_names_one_source_and_no_other_is_tried(api: Api) -> None:
    await api.push_blob(THERE, DATA)
    answer = await api.http.post(
        f"/v2/{HERE}/blobs/uploads/", params={"mount": str(DIGEST), "from": "team/third"}
    )
    require_session(answer, 202, HERE, 0)
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 404


# Manifests


@MEMORY
async def test_3_9_a_manifest_known_elsewhere_is_unknown_here(api: Api) -> None:
    digest, raw = await api.push_image(THERE, "latest")
    await api.push_blob(HERE, b"so that it exists")
    for reference in (str(digest), "latest"):
        for method in ("GET", "HEAD", "DELETE"):
            answer = await api.http.request(method, f"/v2/{HERE}/manifests/{reference}")
            assert answer.status_code == 404
        assert (await api.http.get(f"/v2/{THERE}/manifests/{reference}")).content == raw
    assert (await api.http.get(f"/v2/{HERE}/tags/list")).json()["tags"] == []


@MEMORY
async def test_7_a_manifest_cannot_reference_what_is_only_elsewhere(api: Api) -> None:
    config, layer = b"{}", DATA
    for data in (config, layer):
        await api.push_blob(THERE, data)
    raw = image_manifest(config, [layer])
    answer = await api.put_manifest(HERE, "latest", raw)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"] * 2
    named = {error["detail"]["digest"] for error in answer.json()["errors"]}
    assert named == {str(Digest.of(config)), str(DIGEST)}

    assert (await api.put_manifest(THERE, "latest", raw)).status_code == 201
    index = index_manifest([raw])
    blobs = json.loads(index_manifest([]))
    blobs["manifests"] = [descriptor(layer)]
    for listed, missing in ((index, Digest.of(raw)), (json.dumps(blobs).encode(), DIGEST)):
        answer = await api.put_manifest(HERE, "latest", listed)
        assert answer.status_code == 400
        assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
        assert answer.json()["errors"][0]["detail"] == {"digest": str(missing)}
    for digest in (DIGEST, Digest.of(config)):
        assert (await api.http.head(f"/v2/{HERE}/blobs/{digest}")).status_code == 404
    assert (await api.http.get(f"/v2/{HERE}/tags/list")).status_code == 404


@MEMORY
async def test_12_referrers_are_those_of_this_repository(api: Api) -> None:
    subject, raw = await api.push_image(THERE, "latest")
    signed = await api.push_image(THERE, "signature", "s", subject=descriptor(raw))
    # A subject may be missing in a repository. Its referrers there are not listed elsewhere.
    ours, _ = await api.push_image(HERE, "signature", "t", subject=descriptor(raw))
    for name, expected in ((THERE, [signed[0]]), (HERE, [ours]), ("never/existed", [])):
        answer = await api.http.get(f"/v2/{name}/referrers/{subject}")
        assert answer.status_code == 200
        listed = [entry["digest"] for entry in answer.json()["manifests"]]
        assert listed == [str(digest) for digest in expected]


# Deleted and created again


@MEMORY
async def test_2_3_a_repository_made_again_has_nothing_of_the_old_one(api: Api) -> None:
    digest, raw = await api.push_image(HERE, "latest", "x")
    await api.push_image(HERE, "signature", "s", subject=descriptor(raw))
    await api.push_blob(HERE, DATA)
    await delete_repository(api, HERE)
    for born_again in (False, True):
        if born_again:
            await api.push_blob(HERE, b"another life")
        for path in (
            f"blobs/{DIGEST}",
            f"blobs/{Digest.of(b'layer one x')}",
            f"manifests/{digest}",
            "manifests/latest",
        ):
            for method in ("GET", "HEAD"):
                answer = await api.http.request(method, f"/v2/{HERE}/{path}")
                assert answer.status_code == 404, path
        referrers = await api.http.get(f"/v2/{HERE}/referrers/{digest}")
        assert referrers.json()["manifests"] == []
    assert (await api.http.get(f"/v2/{HERE}/tags/list")).json()["tags"] == []
    again = await api.put_manifest(HERE, "latest", raw)
    assert set(codes(again)) == {"MANIFEST_BLOB_UNKNOWN"}


async def test_5_6_13_14_a_session_dies_with_its_repository(api: Api) -> None:
    await api.push_blob(HERE, b"so that it exists")
    location = await api.start_upload(HERE)
    await api.http.patch(location, content=DATA[:6])
    await delete_repository(api, HERE)
    await require_session_unknown(api, location)
    await api.push_blob(HERE, b"another life")
    await require_session_unknown(api, location)
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 404
    expiry = find_job(api.opened, "upload-expiry", upload_expiry=0)
    assert await expiry.run() == 1
    assert await count_sessions(api.opened.database) == 0
    assert await api.opened.driver.list_staged() == []


@pytest.mark.parametrize("born_again", [False, True])
async def test_6_a_repository_deleted_while_its_blob_arrives_does_not_get_it(
    api: Api, born_again: bool
) -> None:
    await api.push_blob(HERE, b"so that it exists")
    location = await api.start_upload(HERE)
    exchange = api.speak("PUT", f"{location}?digest={DIGEST}")
    await exchange.feed(DATA[:6])
    await delete_repository(api, HERE)
    if born_again:
        await api.push_blob(HERE, b"another life")
    answer = (await exchange.finish(DATA[6:])).answer()
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).status_code == 404
    catalogue = (await api.http.get("/v2/_catalog")).json()["repositories"]
    assert catalogue == ([HERE] if born_again else [])
    # The published bytes are not used, but they have an owner that deletes them.
    expiry = find_job(api.opened, "upload-expiry", upload_expiry=0)
    assert await expiry.run() == 1
    await api.opened.registry.deletions.sweep()
    assert not [key for key in list_stored(api.opened.driver) if DIGEST.hex in key]


async def test_5_6_a_session_outlives_a_repository_that_was_emptied(api: Api) -> None:
    """Deleting the last image of a repository does not break a push that is under way."""
    content = b"the last content"
    digest = await api.push_blob(HERE, content)
    location = await api.start_upload(HERE)
    await api.http.patch(location, content=DATA[:6])
    assert (await api.http.delete(f"/v2/{HERE}/blobs/{digest}")).status_code == 202
    assert (await api.http.get(f"/v2/{HERE}/tags/list")).status_code == 404
    require_session(await api.http.get(location), 204, HERE, 6)
    require_session(await api.http.patch(location, content=DATA[6:9]), 202, HERE, 9)
    await api.push_blob(HERE, content)  # another push creates the repository again
    done = await api.http.put(location, params={"digest": str(DIGEST)}, content=DATA[9:])
    require_created(done, HERE, DIGEST)
    assert (await api.http.get(f"/v2/{HERE}/blobs/{DIGEST}")).content == DATA


@MEMORY
async def test_4a_6_sessions_from_before_the_birth_belong_to_whom_is_born(api: Api) -> None:
    """Docker starts all layers of an image at once in a repository that does not exist yet."""
    locations = [await api.start_upload(HERE) for _ in range(3)]
    for number, location in enumerate(locations):
        data = f"layer {number}".encode()
        digest = Digest.of(data)
        done = await api.http.put(location, params={"digest": str(digest)}, content=data)
        require_created(done, HERE, digest)
