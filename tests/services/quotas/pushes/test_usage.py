"""Warnings, room that is given back, and pushes at once."""

import asyncio

import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import ANONYMOUS
from registry.oci.names import RepositoryName
from registry.units import round_size
from storage.digest import Digest
from tests.api.conftest import Api
from tests.services.quotas.pushes.helpers import (
    TEAM,
    blob,
    left_behind,
    list_standings,
    push_by_put,
    push_streamed,
    push_whole,
    require_refused,
    set_quota,
    used,
)
from tests.support.accounts import OPERATOR
from tests.support.kit import find_job, image_manifest

pytestmark = pytest.mark.anyio


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
