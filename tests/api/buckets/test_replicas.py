"""Replicas that share a bucket."""

import asyncio

import pytest

from registry.services.content import upload_leases
from registry.services.content.publication import Publication
from storage.digest import Digest
from storage.s3.driver import S3Driver
from tests.api.buckets.content import DATA, DIGEST, NAME, PART, PARTS, blob, require_nothing_kept
from tests.api.conftest import Started
from tests.support.clock import MovableClock
from tests.support.kit import (
    codes,
    list_bucket,
    list_stored,
    require_created,
    require_session,
)
from tests.support.servers.seaweed import Bucket

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("driver", ["s3"]),
    pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True),
]


class TestReplicas:
    """Requests of one session that reach different replicas."""

    @pytest.mark.parametrize("step", [3_000_001, PART, len(DATA)])
    async def test_chunks_alternate(self, start_api: Started, bucket: Bucket, step: int) -> None:
        async with start_api(PARTS) as one, start_api(PARTS) as two:
            apis = [one, two]
            location = await one.start_upload(NAME)
            for at in range(0, len(DATA), step):
                apis.reverse()
                answer = await apis[0].http.patch(location, content=DATA[at : at + step])
                require_session(answer, 202, NAME, min(at + step, len(DATA)))
            apis.reverse()
            answer = await apis[0].http.put(location, params={"digest": str(DIGEST)})
            require_created(answer, NAME, DIGEST)
            for api in apis:
                assert (await api.http.get(blob(DIGEST))).content == DATA
            await one.opened.registry.deletions.sweep()
            assert len(list_stored(one.opened.driver)) == 1
            assert bucket.list_keys("staging/") == []
            assert bucket.list_uploads() == []

    async def test_a_digest_that_nobody_kept_is_read_from_the_object(
        self, start_api: Started
    ) -> None:
        digest = Digest.of(DATA, "sha512")
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            await api.http.patch(location, content=DATA)
            answer = await api.http.put(location, params={"digest": str(digest)})
            require_created(answer, NAME, digest)
            assert (await api.http.get(blob(digest))).content == DATA

    @pytest.mark.parametrize("before", [0, PART + 5], ids=["whole", "in two"])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_a_wrong_digest_leaves_nothing(
        self, start_api: Started, bucket: Bucket, algorithm: str, before: int
    ) -> None:
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            if before:
                await api.http.patch(location, content=DATA[:before])
            wrong = str(Digest.of(b"something else", algorithm))
            answer = await api.http.put(location, params={"digest": wrong}, content=DATA[before:])
            assert answer.status_code == 400
            assert codes(answer) == ["DIGEST_INVALID"]
            await require_nothing_kept(api)
            assert bucket.list_uploads() == []

    async def test_a_cancelled_upload_leaves_nothing(
        self, start_api: Started, bucket: Bucket
    ) -> None:
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            await api.http.patch(location, content=DATA)
            assert bucket.list_uploads() != []
            assert (await api.http.delete(location)).status_code == 204
            await require_nothing_kept(api)
            assert bucket.list_uploads() == []

    async def test_a_put_that_died_before_its_row_is_sent_again(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            await api.http.patch(location, content=DATA[:PART])
            link = Publication.link

            async def killed(*_: object, **__: object) -> None:
                raise OSError

            monkeypatch.setattr(Publication, "link", killed)
            put = {"params": {"digest": str(DIGEST)}, "content": DATA[PART:]}
            assert (await api.http.put(location, **put)).status_code == 500  # type: ignore[arg-type]
            monkeypatch.setattr(Publication, "link", link)
            require_created(await api.http.put(location, **put), NAME, DIGEST)  # type: ignore[arg-type]
            assert (await api.http.get(blob(DIGEST))).content == DATA
            await api.opened.registry.deletions.sweep()
            assert len(list_stored(api.opened.driver)) == 1


class TestHolds:
    """Leases of upload sessions, which exclude other requests while their holder is alive."""

    async def test_a_dead_holder_is_followed(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        movable_clock = MovableClock(monkeypatch)
        async with start_api(PARTS) as one, start_api(PARTS) as two:
            location = await one.start_upload(NAME)
            await one.http.patch(location, content=b"0123")
            dead = upload_leases.UploadLeases(one.opened.database)
            assert await dead._claim(location.rpartition("/")[2]) is not None
            following = asyncio.create_task(two.http.patch(location, content=b"4567"))
            assert not (await asyncio.wait([following], timeout=4 * upload_leases.POLL_S))[0]
            movable_clock.forward(upload_leases.LEASE_S + 1)
            require_session(await following, 202, NAME, 8)

    async def test_a_slow_holder_is_not(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 0.01)
        movable_clock = MovableClock(monkeypatch)
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            exchange = api.speak("PATCH", location)
            await exchange.feed(b"0123")
            for _ in range(3):
                movable_clock.forward(upload_leases.LEASE_S - 1)
                await asyncio.sleep(0.2)
                assert (await api.http.patch(location, content=b"no")).status_code == 409
            require_session((await exchange.finish(b"45")).answer(), 202, NAME, 6)

    async def test_whoever_was_followed_is_not_believed(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A holder that was stopped for longer than its lease continues."""
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 3600.0)
        movable_clock = MovableClock(monkeypatch)
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            exchange = api.speak("PATCH", location)
            await exchange.feed(b"late")
            movable_clock.forward(upload_leases.LEASE_S + 1)
            require_session(await api.http.patch(location, content=b"first"), 202, NAME, 5)
            answer = await api.http.put(location, params={"digest": str(Digest.of(b"first"))})
            require_created(answer, NAME, Digest.of(b"first"))
            await api.opened.registry.deletions.sweep()
            assert (await exchange.finish(b"")).status == 404
            await api.opened.registry.deletions.sweep()
            driver = api.opened.driver
            assert isinstance(driver, S3Driver)
            assert list_bucket(driver, "staging/") == []
