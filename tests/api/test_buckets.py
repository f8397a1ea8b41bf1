"""Replicas with one bucket: shared state, requests to the store, and failures of the store.

The whole suite also runs on a bucket. These tests cover behaviour that only a bucket has.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from registry.services.content import upload_leases
from registry.services.content.publication import Publication
from storage.digest import Digest
from storage.s3.driver import S3Driver
from tests.api.conftest import Api, Started
from tests.support.clock import Hands
from tests.support.content import distinct_words
from tests.support.flaky import UNAVAILABLE, Fault, Flaky, flaky
from tests.support.kit import (
    codes,
    find_job,
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

NAME = "team/app"
PART = 5 << 20
DATA = distinct_words(2 * PART) + b"the end"
DIGEST = Digest.of(DATA)
PARTS = {"storage.part_size": "5MiB"}


def blob(digest: Digest) -> str:
    return f"/v2/{NAME}/blobs/{digest}"


async def require_nothing_kept(api: Api) -> None:
    while await api.opened.registry.deletions.sweep():
        pass
    driver = api.opened.driver
    assert isinstance(driver, S3Driver)
    assert list_bucket(driver, "blobs/") + list_bucket(driver, "staging/") == []


@pytest.fixture
def network(bucket: Bucket, store: dict[str, str]) -> Iterator[Flaky]:
    """Run a proxy in front of the bucket that the test controls."""
    with flaky(bucket.endpoint) as proxy:
        store["storage.endpoint"] = proxy.url
        yield proxy


@pytest.fixture
async def near(network: Flaky, start_api: Started) -> AsyncIterator[Api]:
    async with start_api(PARTS) as api:
        network.seen.clear()
        yield api


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
        hands = Hands(monkeypatch)
        async with start_api(PARTS) as one, start_api(PARTS) as two:
            location = await one.start_upload(NAME)
            await one.http.patch(location, content=b"0123")
            dead = upload_leases.UploadLeases(one.opened.database)
            assert await dead._claim(location.rpartition("/")[2]) is not None
            following = asyncio.create_task(two.http.patch(location, content=b"4567"))
            assert not (await asyncio.wait([following], timeout=4 * upload_leases.POLL_S))[0]
            hands.forward(upload_leases.LEASE_S + 1)
            require_session(await following, 202, NAME, 8)

    async def test_a_slow_holder_is_not(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 0.01)
        hands = Hands(monkeypatch)
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            exchange = api.speak("PATCH", location)
            await exchange.feed(b"0123")
            for _ in range(3):
                hands.forward(upload_leases.LEASE_S - 1)
                await asyncio.sleep(0.2)
                assert (await api.http.patch(location, content=b"no")).status_code == 409
            require_session((await exchange.finish(b"45")).answer(), 202, NAME, 6)

    async def test_whoever_was_followed_is_not_believed(
        self, start_api: Started, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A holder that was stopped for longer than its lease continues."""
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 3600.0)
        hands = Hands(monkeypatch)
        async with start_api(PARTS) as api:
            location = await api.start_upload(NAME)
            exchange = api.speak("PATCH", location)
            await exchange.feed(b"late")
            hands.forward(upload_leases.LEASE_S + 1)
            require_session(await api.http.patch(location, content=b"first"), 202, NAME, 5)
            answer = await api.http.put(location, params={"digest": str(Digest.of(b"first"))})
            require_created(answer, NAME, Digest.of(b"first"))
            await api.opened.registry.deletions.sweep()
            assert (await exchange.finish(b"")).status == 404
            await api.opened.registry.deletions.sweep()
            driver = api.opened.driver
            assert isinstance(driver, S3Driver)
            assert list_bucket(driver, "staging/") == []


class Gate:
    """Gate that blocks the first matching request to the store until it is opened."""

    def __init__(self, network: Flaky, method: str, word: str) -> None:
        self._method, self._word = method, word
        self._reached, self._opened = threading.Event(), threading.Event()
        network.judge = self._judge

    def _judge(self, method: str, target: str) -> None:
        if not self._reached.is_set() and method == self._method and self._word in target:
            self._reached.set()
            assert self._opened.wait(8)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 8)

    def open(self) -> None:
        self._opened.set()


class TestLate:
    """A holder whose request to the store is delayed for longer than its lease."""

    @pytest.fixture
    def hands(self, monkeypatch: pytest.MonkeyPatch) -> Hands:
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 3600.0)
        return Hands(monkeypatch)

    @pytest.mark.parametrize(
        "stopped",
        [
            ("PATCH", 100, "/staging/"),
            ("PATCH", PART + 1, "?uploads"),
            ("PATCH", PART + 1, "partNumber"),
            ("PUT", 100, "/blobs/sha256/"),
            ("PUT", PART + 1, "uploadId="),
        ],
        ids=["tail", "begin", "part", "whole", "complete"],
    )
    async def test_it_leaves_nothing_of_a_session_that_ended(
        self, hands: Hands, near: Api, network: Flaky, bucket: Bucket, stopped: tuple[str, int, str]
    ) -> None:
        method, size, word = stopped
        location = await near.start_upload(NAME)
        data = DATA[:size]
        verb = {"partNumber": "PUT", "/staging/": "PUT", "/blobs/sha256/": "PUT"}.get(word, "POST")
        gate = Gate(network, verb, word)
        params = {"digest": str(Digest.of(data))} if method == "PUT" else {}
        late = asyncio.create_task(near.http.request(method, location, params=params, content=data))
        await gate.reached()
        hands.forward(7 * 86_400)
        job = find_job(near.opened, "upload-expiry")
        assert await job.run() == 1
        await require_nothing_kept(near)
        assert bucket.list_uploads() == []
        gate.open()
        assert (await late).status_code in {404, 409}
        await require_nothing_kept(near)
        assert bucket.list_uploads() == []

    async def test_it_harms_nothing_of_who_came_later(
        self, hands: Hands, near: Api, network: Flaky
    ) -> None:
        location = await near.start_upload(NAME)
        gate = Gate(network, "PUT", "/blobs/sha256/")
        digest = Digest.of(b"small")
        await near.http.patch(location, content=b"small")
        params = {"digest": str(digest)}
        late = asyncio.create_task(near.http.put(location, params=params))
        await gate.reached()
        hands.forward(upload_leases.LEASE_S + 1)
        require_created(await near.http.put(location, params=params), NAME, digest)
        gate.open()
        require_created(await late, NAME, digest)
        while await near.opened.registry.deletions.sweep():
            pass
        assert (await near.http.get(blob(digest))).content == b"small"

    async def test_a_key_that_was_given_up_is_never_used_again(
        self, near: Api, network: Flaky
    ) -> None:
        """The store may have written the bytes although it did not confirm them."""
        location = await near.start_upload(NAME)
        network.judge = lambda method, _target: UNAVAILABLE if method == "HEAD" else None
        await near.http.patch(location, content=b"one")
        first = {"digest": str(Digest.of(b"one"))}
        assert (await near.http.put(location, params=first)).status_code == 503
        network.judge = lambda _method, _target: None
        (given_up,) = list_stored(near.opened.driver)
        answer = await near.http.patch(location, content=b"")
        require_session(answer, 202, NAME, 3)
        require_created(await near.http.put(location, params=first), NAME, Digest.of(b"one"))
        while await near.opened.registry.deletions.sweep():
            pass
        assert given_up not in list_stored(near.opened.driver)
        assert (await near.http.get(blob(Digest.of(b"one")))).content == b"one"


class TestCosts:
    """Number of requests to the store."""

    async def test_of_reading(self, near: Api, network: Flaky) -> None:
        await near.push_image(NAME, "v1")
        digest = await near.push_blob(NAME, DATA)
        network.seen.clear()
        assert (await near.http.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
        assert (await near.http.head(blob(digest))).status_code == 200
        assert (
            await near.http.get(blob(digest), headers={"If-None-Match": f'"{digest}"'})
        ).is_success is False
        mounted = await near.http.post(
            "/v2/other/blobs/uploads/", params={"mount": str(digest), "from": NAME}
        )
        assert mounted.status_code == 201
        assert network.seen == []
        assert (await near.http.get(blob(digest))).content == DATA
        part = await near.http.get(blob(digest), headers={"Range": "bytes=7-9"})
        assert (part.status_code, part.content) == (206, DATA[7:10])
        assert [method for method, _ in network.seen] == ["GET", "GET"]

    async def test_of_a_small_push(self, near: Api, network: Flaky) -> None:
        await near.push_blob(NAME, b"small")
        assert [method for method, _ in network.seen] == ["PUT", "HEAD"]


class TestFailures:
    """Failures of the store: 503 within the time limit, and recovery afterwards."""

    async def test_a_dead_store(self, near: Api, network: Flaky) -> None:
        await near.push_image(NAME, "v1")
        digest = await near.push_blob(NAME, DATA)
        location = await near.start_upload(NAME)
        await near.http.patch(location, content=DATA[: PART + 5])
        network.refuse()
        begun = time.monotonic()
        for answer in [
            await near.http.get(blob(digest)),
            await near.http.patch(location, content=DATA[PART + 5 :]),
            await near.http.post(
                f"/v2/{NAME}/blobs/uploads/",
                params={"digest": str(Digest.of(b"new"))},
                content=b"new",
            ),
        ]:
            assert answer.status_code == 503
            assert codes(answer) == ["UNAVAILABLE"]
            assert answer.headers["Retry-After"] == "5"
        assert time.monotonic() - begun < 100
        assert (await near.http.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
        assert (await near.http.head(blob(digest))).status_code == 200
        assert (await near.http.get("/readyz")).status_code == 503
        network.listen()
        back = time.monotonic()
        while (await near.http.get("/readyz")).status_code != 200:
            assert time.monotonic() - back < 60
        assert (await near.http.get(blob(digest))).content == DATA
        require_session(
            await near.http.patch(location, content=DATA[PART + 5 :]), 202, NAME, len(DATA)
        )
        answer = await near.http.put(location, params={"digest": str(DIGEST)})
        require_created(answer, NAME, DIGEST)

    async def test_half_of_the_requests(self, near: Api, network: Flaky) -> None:
        count = iter(range(10_000))
        network.judge = lambda _method, _target: UNAVAILABLE if next(count) % 2 else None
        for number in range(5):
            data = DATA + bytes([number])
            digest = await near.push_blob(NAME, data)
            assert (await near.http.get(blob(digest))).content == data

    async def test_a_body_that_breaks_off_for_good(self, near: Api, network: Flaky) -> None:
        """The client sees a cut connection, and the blob is not marked as damaged."""
        digest = await near.push_blob(NAME, DATA)
        network.judge = lambda method, _target: Fault(after=1000) if method == "GET" else None
        exchange = await near.speak("GET", blob(digest)).finish()
        assert exchange.status == 200
        assert not exchange.complete
        network.judge = lambda _method, _target: None
        assert (await near.http.get(blob(digest))).content == DATA

    async def test_bytes_that_are_gone_are_healed_by_a_push(
        self, near: Api, bucket: Bucket
    ) -> None:
        digest = await near.push_blob(NAME, DATA)
        (key,) = list_stored(near.opened.driver)
        bucket.delete(key)
        assert (await near.http.head(blob(digest))).status_code == 200  # not noticed yet
        for method in ("GET", "HEAD"):
            assert (await near.http.request(method, blob(digest))).status_code == 404
        await near.push_blob(NAME, DATA)
        assert (await near.http.get(blob(digest))).content == DATA

    async def test_bytes_of_another_length_are_damage(self, near: Api, bucket: Bucket) -> None:
        digest = await near.push_blob(NAME, b"0123456789")
        (key,) = list_stored(near.opened.driver)
        bucket.put(key, b"01234")
        assert (await near.http.get(blob(digest))).status_code == 404
        await near.push_blob(NAME, b"0123456789")
        assert (await near.http.get(blob(digest))).content == b"0123456789"
