"""Settings that disable changes."""

import pytest

from storage.digest import Digest
from tests.api.conftest import Api, Started
from tests.api.deletes.helpers import CONFIG, DIGEST, LOCAL, NAME, RAW, SQLITE, list_tags, url
from tests.support.kit import codes, media_type_of

pytestmark = pytest.mark.anyio


# Disabled changes


ABSENT = Digest.of(b"absent")
PUSHES = [
    ("POST", f"/v2/{NAME}/blobs/uploads/", []),
    ("POST", f"/v2/{NAME}/blobs/uploads/?digest={Digest.of(b'x')}", []),
    ("POST", f"/v2/{NAME}/blobs/uploads/?mount={Digest.of(CONFIG)}&from={NAME}", []),
    ("PATCH", "UPLOAD", ["GET"]),
    ("PUT", f"UPLOAD?digest={Digest.of(b'x')}", ["GET"]),
    ("DELETE", "UPLOAD", ["GET"]),
    ("PUT", url("a"), ["GET", "HEAD"]),
    ("PUT", url("new"), ["GET", "HEAD"]),
    ("PUT", f"{url(DIGEST)}?tag=new", ["GET", "HEAD"]),
]
DELETES = [
    ("DELETE", url("a"), ["GET", "HEAD"]),
    ("DELETE", url("absent"), ["GET", "HEAD"]),
    ("DELETE", url(DIGEST), ["GET", "HEAD"]),
    ("DELETE", url(DIGEST, "nowhere"), ["GET", "HEAD"]),
    ("DELETE", f"/v2/{NAME}/blobs/{Digest.of(CONFIG)}", ["GET", "HEAD"]),
    ("DELETE", f"/v2/{NAME}/blobs/{ABSENT}", ["GET", "HEAD"]),
]
READS = [
    "/v2/",
    url("a"),
    url(DIGEST),
    f"/v2/{NAME}/blobs/{Digest.of(CONFIG)}",
    f"/v2/{NAME}/tags/list",
    f"/v2/{NAME}/referrers/{DIGEST}",
    "/v2/_catalog",
]


async def prepare(start_api: Started) -> str:
    """Fill a registry that allows changes, and return the location of an upload session."""
    async with start_api() as api:
        await api.push_blob(NAME, CONFIG)
        await api.put_manifest(NAME, "a", RAW)
        return await api.start_upload(NAME)


async def require_refused(
    api: Api, requests: list[tuple[str, str, list[str]]], upload: str, setting: str
) -> None:
    for method, target, allowed in requests:
        path = target.replace("UPLOAD", upload)
        headers = {"Content-Type": media_type_of(RAW)}
        answer = await api.http.request(method, path, content=RAW, headers=headers)
        assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"]), (method, path)
        assert setting in answer.json()["errors"][0]["message"]
        assert answer.headers["Allow"] == ", ".join(allowed), (method, path)


async def require_readable(api: Api, upload: str) -> None:
    for path in READS:
        assert (await api.http.get(path)).status_code == 200, path
    assert (await api.http.get(upload)).status_code == 204
    assert await list_tags(api) == ["a"]


@LOCAL
async def test_9_read_only_refuses_every_change(start_api: Started) -> None:
    upload = await prepare(start_api)
    async with start_api({"content.read_only": "true"}) as api:
        await require_refused(api, PUSHES + DELETES, upload, "read_only")
        await require_readable(api, upload)


@LOCAL
async def test_9_switched_off_refuses_deletions_alone(start_api: Started) -> None:
    upload = await prepare(start_api)
    async with start_api({"content.allow_delete": "false"}) as api:
        requests = [
            (method, path, [*allowed, "PUT"] if "manifests" in path else allowed)
            for method, path, allowed in DELETES
        ]
        await require_refused(api, requests, upload, "delete")
        await require_readable(api, upload)
        assert (await api.put_manifest(NAME, "new", RAW)).status_code == 201
        assert (await api.http.delete(upload)).status_code == 204  # cancels an unfinished upload


@LOCAL
@SQLITE
async def test_9_both_switches_at_once(start_api: Started) -> None:
    upload = await prepare(start_api)
    async with start_api({"content.read_only": "true", "content.allow_delete": "false"}) as api:
        await require_refused(api, PUSHES + DELETES, upload, "content.")
        await require_readable(api, upload)
