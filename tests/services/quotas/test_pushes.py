"""Tests of pushes against quotas: the answers that clients get, and what remains afterwards."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import ANONYMOUS
from registry.errors import QuotaExceededError
from registry.metadata import tables
from registry.metadata.content import usage
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.quotas.quotas import Standing
from registry.units import round_size
from storage.digest import Digest
from storage.memory import MemoryDriver
from storage.s3.driver import S3Driver
from tests.api.conftest import Api
from tests.support.accounts import OPERATOR
from tests.support.kit import codes, find_job, image_manifest, list_bucket, list_stored

pytestmark = pytest.mark.anyio

TEAM = "team/**"


async def set_quota(api: Api, limit: int, pattern: str = TEAM) -> None:
    """Set a quota and count the existing content."""
    await api.opened.access.quotas.set(pattern, limit, OPERATOR)
    while await api.opened.registry.quotas.count():
        pass


async def used(api: Api, pattern: str = TEAM) -> int:
    return next(s.used for s in await list_standings(api) if s.quota.pattern == pattern)


async def list_standings(api: Api) -> list[Standing]:
    return [report.standing for report in await api.opened.registry.quotas.list_page(1000)]


async def left_behind(api: Api) -> dict[str, int]:
    """Return the counts of rows and objects, after the job has deleted pending keys."""
    job = find_job(api.opened, "pending-deletions")
    while await job.run():
        pass
    names = (
        *("repositories", "blobs", "repository_blobs", "manifests"),
        *("tags", "uploads", "change_feed"),
    )
    counts = {
        name: sa.select(sa.func.count()).select_from(tables.metadata.tables[name]) for name in names
    }
    found = await api.opened.database.read(
        lambda tx: {n: int(tx.execute(counts[n]).scalar_one()) for n in names}
    )
    driver = api.opened.driver
    if isinstance(driver, S3Driver):
        return {**found, "stored": len(list_bucket(driver, ""))}
    assert isinstance(driver, MemoryDriver)
    return {**found, "stored": len(list_stored(driver)), "staged": len(driver.staged)}


def blob(size: int, seed: int = 0) -> bytes:
    return bytes([seed]) * size


async def in_pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body whose length is not announced."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def require_refused(answer: httpx.Response, *, limit: int, used: int) -> None:
    assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
    [error] = answer.json()["errors"]
    assert "quota exceeded: team/**" in error["message"]
    assert error["detail"]["quota"] == TEAM
    assert (error["detail"]["limit"], error["detail"]["used"]) == (limit, used)


async def push_whole(api: Api, data: bytes) -> httpx.Response:
    params = {"digest": str(Digest.of(data))}
    return await api.http.post("/v2/team/app/blobs/uploads/", params=params, content=data)


async def push_streamed(api: Api, data: bytes) -> httpx.Response:
    """Push as Docker does: a PATCH of unknown length, and a PUT without a body."""
    place = await api.start_upload("team/app")
    answer = await api.http.patch(place, content=in_pieces_of(data, 100))
    if answer.status_code != 202:
        assert (await api.http.get(place)).status_code == 404  # the session has ended
        return answer
    return await api.http.put(place, params={"digest": str(Digest.of(data))})


async def push_by_put(api: Api, data: bytes) -> httpx.Response:
    place = await api.start_upload("team/app")
    answer = await api.http.put(place, params={"digest": str(Digest.of(data))}, content=data)
    assert (await api.http.get(place)).status_code == 404
    return answer


WAYS = pytest.mark.parametrize("push", [push_whole, push_streamed, push_by_put])


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


async def test_from_nine_tenths_on_pushes_are_warned(api: Api) -> None:
    await set_quota(api, 1000)
    config = blob(100, 9)
    digest = await api.push_blob("team/app", config)
    answer = await push_whole(api, blob(799))
    assert (answer.status_code, "Warning" in answer.headers) == (201, False)
    said = '299 - "the quota of team/** is 90% full: 900B of 1000B are used"'
    answer = await push_whole(api, blob(1, 1))
    assert answer.headers["Warning"] == said
    mount = {"mount": str(digest), "from": "team/app"}
    answer = await api.http.post("/v2/team/two/blobs/uploads/", params=mount)
    assert (answer.status_code, answer.headers["Warning"]) == (201, said)
    place = await api.start_upload("team/app")
    answer = await api.http.put(place, params={"digest": str(digest)}, content=config)
    assert (answer.status_code, answer.headers["Warning"]) == (201, said)
    assert "Warning" not in (await api.http.get(f"/v2/team/app/blobs/{digest}")).headers
    # Every quota that is nearly full adds a warning.
    await set_quota(api, 900, "**")
    answer = await api.http.post("/v2/team/three/blobs/uploads/", params=mount)
    assert answer.headers.get_list("Warning") == [
        said,
        '299 - "the quota of ** is 100% full: 900B of 900B are used"',
    ]
    raw = image_manifest(config, [])
    await set_quota(api, 1 << 20, "**")
    await set_quota(api, 900 + len(raw))
    full = round_size(900 + len(raw))
    answer = await api.put_manifest("team/app", "v1", raw)
    assert answer.headers["Warning"] == (
        f'299 - "the quota of team/** is 100% full: {full} of {full} are used"'
    )


async def test_deleting_gives_room_back(api: Api) -> None:
    await set_quota(api, 1000)
    first = await api.push_blob("team/app", blob(600))
    await api.push_blob("team/two", blob(400, 1))
    assert (await push_whole(api, blob(1, 2))).status_code == 403
    assert (await api.http.delete(f"/v2/team/app/blobs/{first}")).status_code == 202
    assert await used(api) == 400
    await api.opened.registry.repositories.delete(RepositoryName("team/two"), ANONYMOUS)
    assert await used(api) == 0
    assert (await push_whole(api, blob(1000, 3))).status_code == 201


async def test_what_sessions_of_a_deleted_repository_hold_comes_back(api: Api) -> None:
    """Clients can neither continue nor cancel these sessions."""
    await set_quota(api, 1000)
    await api.push_blob("team/app", blob(100))
    place = await api.start_upload("team/app")
    assert (await api.http.patch(place, content=blob(600, 1))).status_code == 202
    await api.opened.registry.repositories.delete(RepositoryName("team/app"), ANONYMOUS)
    assert (await api.http.delete(place)).status_code == 404
    await find_job(api.opened, "upload-expiry").run()
    left = await left_behind(api)
    assert (left["uploads"], left["staged"]) == (0, 0)
    assert (await push_whole(api, blob(1000, 2))).status_code == 201


async def test_each_namespace_has_its_own(api: Api) -> None:
    await set_quota(api, 1000, "*/**")
    await api.push_blob("alice/app", blob(800))
    await api.push_blob("bob/app", blob(900, 1))
    answer = await api.http.post(
        "/v2/alice/more/blobs/uploads/",
        params={"digest": str(Digest.of(blob(300, 2)))},
        content=blob(300, 2),
    )
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["detail"]["quota"] == "alice/**"
    [listed] = await list_standings(api)
    assert (listed.quota.pattern, listed.pattern, listed.used) == ("*/**", "bob/**", 900)
    await set_quota(api, 2000, "alice/**")
    await api.push_blob("alice/more", blob(300, 2))
    each, own = await list_standings(api)
    assert (own.pattern, own.used) == ("alice/**", 1100)
    # The per-namespace quota reports the fullest namespace without a quota of its own.
    assert (each.pattern, each.used) == ("bob/**", 900)
    await set_quota(api, 2000, "bob/**")
    await api.start_upload("alice/app")
    each, *_ = await list_standings(api)
    assert (each.pattern, each.used, each.reserved) == ("*/**", 0, 0)


async def test_of_pushes_at_once_no_more_get_in_than_fit(api: Api) -> None:
    """Sixteen pushes of 1000 bytes each share room for four."""
    await set_quota(api, 4000)

    async def push(number: int) -> int:
        return (await push_streamed(api, blob(1000, number))).status_code

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(push(number) for number in range(16)))
    assert set(answers) <= {201, 403}
    assert answers.count(201) == 4
    assert await used(api) == 4000
    left = await left_behind(api)
    assert (left["blobs"], left["stored"], left["uploads"], left["staged"]) == (4, 4, 0, 0)


async def test_mounts_at_once_exceed_it_by_no_more_than_themselves(api: Api) -> None:
    digests = [await api.push_blob("base/image", blob(1000, number)) for number in range(16)]
    await set_quota(api, 4000)

    async def mount(digest: Digest) -> int:
        params = {"mount": str(digest), "from": "base/image"}
        answer = await api.http.post("/v2/team/app/blobs/uploads/", params=params)
        return answer.status_code

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(mount(digest) for digest in digests))
    assert set(answers) <= {201, 403}
    assert answers.count(201) >= 4
    assert await used(api) == 1000 * answers.count(201)
    # At most eight transactions run at once.
    assert await used(api) <= 4000 + 8 * 1000
    assert await mount(await api.push_blob("base/image", blob(1000, 99))) == 403


def asks_for_quotas(statement: str) -> bool:
    return any(f"{table} " in statement for table in ("quotas", "usage_counter_shards"))


async def test_without_a_quota_nobody_asks_for_one(api: Api) -> None:
    said: list[str] = []
    engine_wide = (sa.Engine, "before_cursor_execute")

    def listen(*args: object) -> None:
        said.append(str(args[2]))

    await push_streamed(api, blob(1000))  # warms the caches
    sa.event.listen(*engine_wide, listen)
    try:
        for number, push in enumerate((push_streamed, push_by_put, push_whole)):
            assert (await push(api, blob(1000, number))).status_code == 201
        assert said
        assert [statement for statement in said if asks_for_quotas(statement)] == []
        # The negative control: with a quota the queries are there.
        await set_quota(api, 9000)
        said.clear()
        assert (await push_streamed(api, blob(1000, 9))).status_code == 201
        assert any(asks_for_quotas(statement) for statement in said)
    finally:
        sa.event.remove(*engine_wide, listen)


async def test_a_quota_holds_at_once_for_all_workers(api: Api, other: Api) -> None:
    place = await other.start_upload("team/app")  # the other worker knows that there is no quota
    assert (await other.http.patch(place, content=blob(600, 1))).status_code == 202
    for limit in (500, 700, 400):
        await api.opened.access.quotas.set(TEAM, limit, OPERATOR)
        require_refused(await push_whole(other, blob(600, 2)), limit=limit, used=0)
    # The quota also applies to a session that started before it was set.
    answer = await other.http.put(place, params={"digest": str(Digest.of(blob(600, 1)))})
    require_refused(answer, limit=400, used=0)
    await api.opened.access.quotas.remove(TEAM, OPERATOR)
    assert (await push_streamed(other, blob(600, 2))).status_code == 201
