"""Tests of healing corrupt blobs from another registry: a real one, and some that lie."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from registry import metrics
from registry.metadata import tables
from registry.services.maintenance import healer as module
from storage.digest import Digest
from tests.api.conftest import Api
from tests.metadata.rows import rows
from tests.services.scrub.conftest import (
    DAMAGES,
    NAME,
    Start,
    damage,
    find_row,
    list_damaged,
    one_place,
    scrub,
)
from tests.support.kit import Kit, find_job, list_stored
from tests.support.servers.server import Server, add_admin, serving
from tests.support.servers.upstream import Reply, Upstream, upstream

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a user of a test
BLOB = b"a layer"
DIGEST = Digest.of(BLOB)
STRANGE = "127.0.0.2"
PATH = f"/v2/{NAME}/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a registry to which ann must sign in."""
    data = tmp_path_factory.mktemp("other") / "data"
    add_admin(data, "ann", PASSWORD)
    with serving(Server(data)) as server:
        yield server


def settings(url: str, **more: str) -> dict[str, str]:
    return {"upstream__url": url, "upstream__allow_private_addresses": "true", **more}


async def heal(api: Api) -> None:
    """Run the job until nothing is left to do."""
    job = find_job(api.opened, "healing")
    while await job.is_due() and await job.run():
        pass


@pytest.mark.parametrize("below", ["", "mirror"])
async def test_what_is_damaged_comes_back_from_upstream(
    start: Start, other: Server, below: str
) -> None:
    sign_in = {"upstream__username": "ann", "upstream__password": PASSWORD}
    before = metrics.BLOBS_HEALED._value.get()
    async with start(**settings(f"{other.url}/{below}", **sign_in)) as api:
        async with httpx.AsyncClient(base_url=other.url, auth=("ann", PASSWORD)) as http:
            await Kit(http).push_image(f"{below}/{NAME}".strip("/"), "latest", "x" * 100_000)
        _, raw = await api.push_image(NAME, "latest", "x" * 100_000)
        blobs = [Digest.parse(layer["digest"]) for layer in json.loads(raw)["layers"]]
        keys = {}
        for digest, how in zip(blobs, ("gone", "flipped"), strict=True):
            answer = await api.http.get(f"/v2/{NAME}/blobs/{digest}")
            keys[digest] = (await find_row(api.opened, digest)).key
            await damage(api.opened.driver, keys[digest], answer.content, how)
        await scrub(api.opened)
        assert set(await list_damaged(api.opened)) == {str(digest) for digest in blobs}
        await heal(api)
        assert await list_damaged(api.opened) == {}
        for digest in blobs:
            answer = await api.http.get(f"/v2/{NAME}/blobs/{digest}")
            assert (answer.status_code, Digest.of(answer.content)) == (200, digest)
        assert metrics.BLOBS_HEALED._value.get() == before + 2
        await api.opened.registry.deletions.sweep()
        assert not set(keys.values()) & set(list_stored(api.opened.driver))
        await scrub(api.opened)
        assert await list_damaged(api.opened) == {}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Upstream, Upstream]]:
    """Yield two servers with scripted answers. The second listens on an address of its own."""
    with upstream() as one, upstream(STRANGE) as two:
        yield one, two


@pytest.fixture
def plain(servers: tuple[Upstream, Upstream]) -> Upstream:
    return forgetful(servers[0])


@pytest.fixture
def strange(servers: tuple[Upstream, Upstream]) -> Upstream:
    return forgetful(servers[1])


def forgetful(server: Upstream) -> Upstream:
    server.replies.clear()
    server.requests.clear()
    return server


async def damaged(api: Api) -> None:
    """Return a blob that is corrupt and recorded as corrupt."""
    await api.push_blob(NAME, BLOB)
    await damage(api.opened.driver, (await find_row(api.opened, DIGEST)).key, BLOB, "flipped")
    await scrub(api.opened)


async def require_nothing_kept(api: Api) -> None:
    """Require that the blob is still corrupt and that nothing received was kept."""
    assert list(await list_damaged(api.opened)) == [str(DIGEST)]
    assert await rows(api.opened.database, tables.uploads) == []
    await api.opened.registry.deletions.sweep()
    assert list_stored(api.opened.driver) == [(await find_row(api.opened, DIGEST)).key]


@one_place
@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"no", 404),
        Reply(b"no", 500),
        *(Reply(DAMAGES[how](BLOB) or b"?") for how in ("flipped", "short", "longer")),
        Reply(BLOB * 100_000, announced=False),
        Reply(BLOB, headers={"content-encoding": "gzip"}),
        Reply(BLOB, headers={"content-length": "99"}, announced=False),
        Reply(BLOB, 401),
        Reply(BLOB, 401, {"www-authenticate": "Basic realm=x"}),
        Reply(BLOB, 401, {"www-authenticate": "Bearer realm=x"}),
        Reply(BLOB, 401, {"www-authenticate": 'Bearer realm="http://[", service'}),
        Reply(b"", 307, {"location": PATH}),
        Reply(b"", 307, {"location": "http://["}),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:9]!r} {reply.headers}",
)
async def test_an_answer_that_is_not_the_blob_changes_nothing(
    start: Start, plain: Upstream, reply: Reply
) -> None:
    async with start(**settings(plain.url())) as api:
        await damaged(api)
        plain.replies[PATH] = reply
        await heal(api)
        assert plain.requests
        await require_nothing_kept(api)


@one_place
async def test_a_circle_of_redirects_is_told_of(
    start: Start, plain: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(**settings(plain.url())) as api:
        await damaged(api)
        plain.replies[PATH] = Reply(b"", 307, {"location": PATH})
        await heal(api)
    assert f"{plain.url()} redirects too many times" in caplog.text


def bearer(realm: str) -> Reply:
    """Return a challenge."""
    return Reply(b"", 401, {"www-authenticate": f'Bearer realm="{realm}",service="s",scope="x"'})


SIGN_IN: dict[str, Any] = {"upstream__username": "ann", "upstream__password": PASSWORD}


@one_place
@pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])
async def test_a_token_is_made_for_the_repository(start: Start, plain: Upstream) -> None:
    plain.replies[PATH] = bearer(plain.url("/token"))
    plain.put("/token", {"token": "made"})
    async with start(**settings(plain.url(), **SIGN_IN)) as api:
        await damaged(api)
        await heal(api)
    sent = [(path, headers.get("authorization", "")) for path, headers in plain.requests]
    assert sent == [
        (PATH, ""),
        ("/token", httpx.BasicAuth("ann", PASSWORD)._auth_header),
        (PATH, "Bearer made"),
    ]


@one_place
@pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])
async def test_no_password_goes_to_another_place(
    start: Start, plain: Upstream, strange: Upstream
) -> None:
    strange.put("/token", {"token": "made"})
    for realm in (
        strange.url("/token", STRANGE),
        f"http://127.0.0.1:{plain.port}@127.0.0.2:{strange.port}/token",
    ):
        plain.replies[PATH] = bearer(realm)
        async with start(**settings(plain.url(), **SIGN_IN)) as api:
            await damaged(api)
            await heal(api)
            await require_nothing_kept(api)
    assert strange.requests == []


@one_place
@pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])
async def test_no_token_follows_a_redirect(
    start: Start, plain: Upstream, strange: Upstream
) -> None:
    strange.replies["/store"] = Reply(BLOB)
    plain.replies[PATH] = Reply(b"", 307, {"location": strange.url("/store", STRANGE)})
    async with start(**settings(plain.url(), **SIGN_IN)) as api:
        await damaged(api)
        await heal(api)
        assert await list_damaged(api.opened) == {}
    strange.replies["/store"] = bearer(strange.url("/token", STRANGE))
    async with start(**settings(plain.url(), **SIGN_IN)) as api:
        await damaged(api)
        await heal(api)
        await require_nothing_kept(api)
    assert [path for path, _ in strange.requests] == ["/store", "/store"]
    assert all("authorization" not in headers for _, headers in strange.requests)


@one_place
async def test_an_upstream_that_is_private_must_be_meant(start: Start, plain: Upstream) -> None:
    plain.replies[PATH] = Reply(BLOB)
    url = plain.url().replace("http:", "https:")
    async with start(upstream__url=url) as api:
        await damaged(api)
        await heal(api)
        await require_nothing_kept(api)
    assert plain.requests == []


@one_place
async def test_what_cannot_be_had_is_tried_again_later(start: Start, plain: Upstream) -> None:
    async with start(**settings(plain.url())) as api:
        await damaged(api)
        await heal(api)
        assert not await find_job(api.opened, "healing").is_due()
        assert len(plain.requests) == 1
        plain.replies[PATH] = Reply(BLOB)
        api.opened.registry.healer._next -= module.PAUSE_S
        await heal(api)
        assert await list_damaged(api.opened) == {}


@one_place
async def test_nothing_is_asked_for_where_nothing_is_damaged(start: Start, plain: Upstream) -> None:
    async with start(**settings(plain.url())) as api:
        await api.push_blob(NAME, BLOB)
        assert not await find_job(api.opened, "healing").is_due()
    async with start() as api:
        await damaged(api)
        assert not await find_job(api.opened, "healing").is_due()
    assert plain.requests == []
