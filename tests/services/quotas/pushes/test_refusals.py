"""Pushes that exceed a quota."""

import asyncio

import pytest

from registry.auth.policy.principals import ANONYMOUS
from registry.errors import QuotaExceededError
from registry.metadata.content import usage
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.units import round_size
from storage.digest import Digest
from tests.api.conftest import Api
from tests.services.quotas.pushes.helpers import (
    TEAM,
    WAYS,
    blob,
    in_pieces_of,
    left_behind,
    require_refused,
    set_quota,
    used,
)
from tests.support.kit import image_manifest

pytestmark = pytest.mark.anyio


@WAYS
async def test_what_does_not_fit_is_refused_and_leaves_nothing(api: Api, push: object) -> None:
    assert callable(push)
    await set_quota(api, 999)
    before = await left_behind(api)
    require_refused(await push(api, blob(1000)), limit=999, used=0)
    assert await left_behind(api) == before
    # The negative control: a blob that fits leaves the expected rows.
    await set_quota(api, 1000)
    assert (await push(api, blob(1000))).status_code == 201
    after = await left_behind(api)
    assert {name for name in after if after[name] != before[name]} == {
        "repositories",
        "blobs",
        "repository_blobs",
        "change_feed",
        "stored",
    }
    assert await used(api) == 1000
    # A full quota refuses every push, even the start of a session.
    answer = await api.http.post("/v2/team/other/blobs/uploads/")
    require_refused(answer, limit=1000, used=1000)
    # The quota does not affect other repositories.
    await api.push_blob("elsewhere/app", blob(5000))


async def test_bytes_of_open_sessions_count(api: Api) -> None:
    await set_quota(api, 1000)
    first = await api.start_upload("team/one")
    assert (await api.http.patch(first, content=blob(600))).status_code == 202
    second = await api.start_upload("team/two")
    answer = await api.http.patch(second, content=blob(600, 1))
    require_refused(answer, limit=1000, used=0)
    assert answer.json()["errors"][0]["detail"]["reserved"] == 600
    assert (await api.http.delete(first)).status_code == 204
    await api.push_blob("team/two", blob(600, 1))


async def test_a_session_grows_as_far_as_the_quota_goes(api: Api) -> None:
    await set_quota(api, 1000)
    place = await api.start_upload("team/app")
    assert (await api.http.patch(place, content=blob(600))).status_code == 202
    assert (await api.http.patch(place, content=blob(400))).status_code == 202
    digest = str(Digest.of(blob(1000)))
    assert (await api.http.put(place, params={"digest": digest})).status_code == 201
    assert await used(api) == 1000


async def test_a_quota_that_shrinks_refuses_at_the_last_step_and_keeps_nothing(api: Api) -> None:
    place = await api.start_upload("team/app")
    assert (await api.http.patch(place, content=blob(600))).status_code == 202
    before = await left_behind(api)
    await set_quota(api, 500)
    answer = await api.http.put(place, params={"digest": str(Digest.of(blob(600)))})
    require_refused(answer, limit=500, used=0)
    assert (await api.http.get(place)).status_code == 404
    assert await left_behind(api) == {**before, "uploads": 0, "staged": 0}


async def test_nothing_is_left_in_a_bucket(on_s3: Api) -> None:
    empty = await left_behind(on_s3)
    place = await on_s3.start_upload("team/app")
    assert (await on_s3.http.patch(place, content=blob(6 << 20))).status_code == 202
    other = await on_s3.start_upload("team/app")
    assert (await left_behind(on_s3))["stored"] > empty["stored"]  # otherwise nothing could remain
    await set_quota(on_s3, 1 << 20)
    digest = str(Digest.of(blob(6 << 20)))
    answer = await on_s3.http.put(place, params={"digest": digest})
    require_refused(answer, limit=1 << 20, used=0)
    answer = await on_s3.http.patch(other, content=in_pieces_of(blob(7 << 20, 1), 1 << 19))
    require_refused(answer, limit=1 << 20, used=0)
    assert await left_behind(on_s3) == empty


async def test_mounts_count_and_are_refused(api: Api) -> None:
    digest = await api.push_blob("base/image", blob(600))
    await set_quota(api, 1000)
    await api.push_blob("team/one", blob(500, 1))
    mount = {"mount": str(digest), "from": "base/image"}
    before = await left_behind(api)
    answer = await api.http.post("/v2/team/two/blobs/uploads/", params=mount)
    require_refused(answer, limit=1000, used=500)
    assert await left_behind(api) == before
    await set_quota(api, 1100)
    answer = await api.http.post("/v2/team/two/blobs/uploads/", params=mount)
    assert answer.status_code == 201
    assert await used(api) == 1100
    # A blob that the quota counts already needs no more space.
    answer = await api.http.post("/v2/team/three/blobs/uploads/", params=mount)
    assert answer.status_code == 201
    assert await used(api) == 1100


async def push_parts(api: Api, name: str = "team/app") -> bytes:
    """Push 600 bytes of blobs. Return the manifest that names them."""
    config, layer = blob(100), blob(500, 1)
    for data in (config, layer):
        await api.push_blob(name, data)
    return image_manifest(config, [layer])


async def test_a_manifest_that_does_not_fit_is_refused_and_leaves_nothing(api: Api) -> None:
    raw = await push_parts(api)
    before = await left_behind(api)
    limit = 600 + len(raw) - 1
    await set_quota(api, limit)
    require_refused(await api.put_manifest("team/app", "v1", raw), limit=limit, used=600)
    answer = await api.put_manifest("team/app", str(Digest.of(raw)), raw)
    assert answer.status_code == 403
    assert answer.json() == {
        "errors": [
            {
                "code": "DENIED",
                "message": "requested access to the resource is denied: quota exceeded: "
                f"team/** uses 600B of {round_size(limit)}; delete content or ask an administrator "
                "to raise the quota",
                "detail": {"quota": TEAM, "limit": limit, "used": 600, "reserved": 0},
            }
        ]
    }
    assert await left_behind(api) == before
    await set_quota(api, limit + 1)
    for _ in range(2):  # a repeated push needs no more space
        assert (await api.put_manifest("team/app", "v1", raw)).status_code == 201
        assert await used(api) == limit + 1
    # An existing manifest is refused too while usage exceeds the limit.
    await set_quota(api, limit)
    answer = await api.put_manifest("team/app", "v2", raw)
    require_refused(answer, limit=limit, used=limit + 1)


async def test_a_manifest_counts_in_each_repository_until_it_is_deleted(api: Api) -> None:
    await set_quota(api, 1 << 20)
    raw = await push_parts(api, "team/one")
    assert await push_parts(api, "team/two") == raw
    for name in ("team/one", "team/two"):
        assert (await api.put_manifest(name, "v1", raw)).status_code == 201
    assert await used(api) == 600 + 2 * len(raw)
    await set_quota(api, 600 + 2 * len(raw))
    other = image_manifest(blob(100), [], annotations={"of": "another"})
    require_refused(
        await api.put_manifest("team/one", "v2", other),
        limit=600 + 2 * len(raw),
        used=600 + 2 * len(raw),
    )
    answer = await api.http.delete(f"/v2/team/one/manifests/{Digest.of(raw)}")
    assert answer.status_code == 202
    assert await used(api) == 600 + len(raw)
    assert len(other) <= len(raw)
    assert (await api.put_manifest("team/one", "v2", other)).status_code == 201
    assert await used(api) == 600 + len(raw) + len(other)
    await api.opened.registry.repositories.delete(RepositoryName("team/two"), ANONYMOUS)
    assert await used(api) == 600 + len(other)


async def test_equal_manifests_pushed_at_once_count_once(api: Api, other: Api) -> None:
    await set_quota(api, 1 << 20)
    raw = await push_parts(api)

    async def push(number: int) -> int:
        through = (api, other)[number % 2]
        return (await through.put_manifest("team/app", f"v{number}", raw)).status_code

    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*map(push, range(12)))) == {201}
    assert await used(api) == 600 + len(raw)


async def test_a_tag_copied_into_it_counts(api: Api) -> None:
    await api.push_image("base/image", "v1")
    await set_quota(api, 10)
    before = await left_behind(api)

    async def copy() -> None:
        source, target = RepositoryName("base/image"), RepositoryName("team/app")
        await api.opened.registry.tags.copy(source, Tag("v1"), target, Tag("v1"), ANONYMOUS)

    with pytest.raises(QuotaExceededError):
        await copy()
    assert await left_behind(api) == before
    await set_quota(api, 10_000)
    await copy()
    found = await api.opened.database.read(usage.measure)
    assert await used(api) == found.bytes + found.manifest_bytes // 2
