"""Redirects of blob requests to the bucket."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.exceptions import NoCredentialsError

from registry.access_log import AccessLine
from registry.errors import BlobUnknownError
from registry.oci.names import RepositoryName
from registry.services.gc import deletions
from storage.digest import Digest
from storage.s3.driver import S3Driver
from tests.api.conftest import Api, Started
from tests.support.accounts import AUTH, Accounts
from tests.support.clock import MovableClock
from tests.support.flaky import Flaky, flaky
from tests.support.kit import list_stored, read_parts
from tests.support.servers.seaweed import Bucket

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["s3"]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

NAME = "team/app"
REPOSITORY = RepositoryName.parse(NAME)
DATA = bytes(range(256)) * 100
DIGEST = Digest.of(DATA)
BLOB = f"/v2/{NAME}/blobs/{DIGEST}"
REDIRECT = {"storage.redirect": "true", "storage.redirect_lifetime": "90s"}


@pytest.fixture
def near(bucket: Bucket, store: dict[str, str]) -> Iterator[Flaky]:
    """Run the proxy between the registry and the bucket."""
    with flaky(bucket.endpoint) as proxy:
        store["storage.endpoint"] = proxy.url
        yield proxy


@pytest.fixture
def far(bucket: Bucket) -> Iterator[Flaky]:
    """Run the proxy between clients and the bucket."""
    with flaky(bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def api(near: Flaky, start_api: Started) -> AsyncIterator[Api]:
    async with start_api(REDIRECT) as started:
        await started.push_blob(NAME, DATA)
        near.seen.clear()
        yield started


def link_of(answer: httpx.Response) -> str:
    """Check the headers of a redirect, and return its target."""
    assert answer.status_code == 307, answer.text
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Length"] == "0"
    return str(answer.headers["Location"])


async def fetch(link: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(link, headers=headers)


async def test_a_pull_is_sent_to_the_bucket(api: Api, near: Flaky) -> None:
    link = link_of(await api.http.get(BLOB))
    assert near.seen == []  # signing needs no request to the store
    assert link.startswith(f"{near.url}/")
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["90"]
    answer = await fetch(link)
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_a_link_is_for_that_object_only(api: Api) -> None:
    link = link_of(await api.http.get(BLOB))
    (key,) = list_stored(api.opened.driver)
    assert (await fetch(link.replace(key, "VERSION"))).status_code == 403


async def test_ranges_are_asked_for_there(api: Api) -> None:
    link = link_of(await api.http.get(BLOB, headers={"Range": "bytes=7-9"}))
    answer = await fetch(link, Range="bytes=7-9")
    assert (answer.status_code, answer.content) == (206, DATA[7:10])


async def test_several_ranges_are_served_here(api: Api) -> None:
    """A bucket would respond with the whole object."""
    answer = await api.http.get(BLOB, headers={"Range": "bytes=7-9,500-505,0-0"})
    assert answer.status_code == 206
    assert [data for _, data in read_parts(answer.headers["Content-Type"], answer.content)] == [
        DATA[7:10],
        DATA[500:506],
        DATA[:1],
    ]
    # A request that gets the whole blob is redirected.
    assert link_of(await api.http.get(BLOB, headers={"Range": "bytes=0-,0-"}))


async def test_what_costs_the_bucket_nothing_is_answered_here(api: Api, near: Flaky) -> None:
    head = await api.http.head(BLOB, headers={"Range": "bytes=7-9"})
    assert head.status_code == 200
    assert head.headers["Content-Length"] == str(len(DATA))
    assert "Location" not in head.headers
    unchanged = await api.http.get(BLOB, headers={"If-None-Match": f'"{DIGEST}"'})
    assert unchanged.status_code == 304
    changed = await api.http.get(BLOB, headers={"If-None-Match": '"sha256:other"'})
    assert link_of(changed)
    assert near.seen == []


async def test_another_host_for_clients(near: Flaky, far: Flaky, start_api: Started) -> None:
    async with start_api({**REDIRECT, "storage.redirect_endpoint": far.url}) as api:
        await api.push_blob(NAME, DATA)
        link = link_of(await api.http.get(BLOB))
        assert link.startswith(f"{far.url}/")
        assert far.seen == []
        assert (await fetch(link)).content == DATA
        assert [method for method, _ in far.seen] == ["GET"]
        # The signature covers the host too.
        assert (await fetch(link.replace(far.url, near.url))).status_code == 403


async def test_only_whoever_may_pull_is_sent_there(start_api: Started) -> None:
    async with start_api({**REDIRECT, **AUTH}) as api:
        accounts = Accounts.of(api.opened)
        alice, eve = await accounts.user("alice"), await accounts.user("eve")
        await accounts.grant("alice", "team/**", "pull,push")
        answer = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/",
            params={"digest": str(DIGEST)},
            content=DATA,
            headers=alice.basic,
        )
        assert answer.status_code == 201
        for headers in ({}, eve.basic):
            refused = await api.http.get(BLOB, headers=headers)
            assert refused.status_code in {401, 403, 404}
            assert "Location" not in refused.headers
        assert link_of(await api.http.get(BLOB, headers=alice.basic))
        # The caller may pull in this repository, but it does not have the blob.
        other = BLOB.replace(NAME, "team/other")
        assert (await api.http.get(other, headers=alice.basic)).status_code == 404


async def test_an_object_outlives_the_links_to_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    link = link_of(await api.http.get(BLOB))
    (key,) = list_stored(api.opened.driver)
    # A push of a damaged blob replaces its object by another one.
    registry = api.opened.registry
    await registry.blobs.note_damage(await registry.blobs.get(REPOSITORY, DIGEST))
    await api.push_blob(NAME, DATA)
    assert len(list_stored(api.opened.driver)) == 2
    movable_clock.forward(90 + deletions.SLACK - 1)
    assert not await api.opened.registry.deletions.is_any_due()
    assert await api.opened.registry.deletions.sweep() == 0
    assert (await fetch(link)).status_code == 200
    movable_clock.forward(2)
    assert await api.opened.registry.deletions.sweep() == 1
    assert key not in list_stored(api.opened.driver)


async def test_a_link_is_in_no_log(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[AccessLine] = []
    monkeypatch.setattr("registry.access_log.write", lines.append)
    caplog.set_level(logging.DEBUG, "registry")
    caplog.set_level(logging.DEBUG, "storage")
    caplog.set_level(logging.DEBUG, "moorage")
    caplog.set_level(logging.INFO)
    link = link_of(await api.http.get(BLOB))
    said = "\n".join(record.getMessage() + repr(record.__dict__) for record in caplog.records)
    assert any(BLOB in line.format() for line in lines)
    said += "\n".join(line.format() for line in lines)
    assert "X-Amz-Signature" not in said
    assert parse_qs(urlsplit(link).query)["X-Amz-Signature"][0] not in said


async def test_bytes_that_were_missed_are_looked_at_here(api: Api, bucket: Bucket) -> None:
    """A blob that was found missing is served without a redirect, so that a recovery is noticed."""
    registry = api.opened.registry
    (key,) = list_stored(api.opened.driver)
    bucket.delete(key)
    row = await registry.blobs.get(REPOSITORY, DIGEST)
    with pytest.raises(BlobUnknownError):
        await registry.blobs.open(row)
    assert (await api.http.get(BLOB)).status_code == 404
    await api.push_blob(NAME, DATA)
    assert link_of(await api.http.get(BLOB))


async def test_keys_that_are_gone_are_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = api.opened.driver
    assert isinstance(driver, S3Driver)
    signer = driver._bucket._client._signer

    def refuse(*_: object, **__: object) -> str:
        raise NoCredentialsError

    monkeypatch.setattr(signer.client(), "generate_presigned_url", refuse)
    answer = await api.http.get(BLOB)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


async def test_many_at_once(api: Api) -> None:
    async def pull() -> str:
        return link_of(await api.http.get(BLOB))

    links = await asyncio.gather(*(pull() for _ in range(50)))
    assert all("X-Amz-Signature=" in link for link in links)
