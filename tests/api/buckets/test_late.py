"""Late writes to a bucket, and the cost of reads and small pushes."""

import asyncio
import threading

import pytest

from registry.services.content import upload_leases
from storage.digest import Digest
from tests.api.buckets.content import DATA, NAME, PART, blob, require_nothing_kept
from tests.api.conftest import Api
from tests.support.clock import MovableClock
from tests.support.flaky import UNAVAILABLE, Flaky
from tests.support.kit import (
    find_job,
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
    def movable_clock(self, monkeypatch: pytest.MonkeyPatch) -> MovableClock:
        monkeypatch.setattr(upload_leases, "HEARTBEAT_S", 3600.0)
        return MovableClock(monkeypatch)

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
        self,
        movable_clock: MovableClock,
        near: Api,
        network: Flaky,
        bucket: Bucket,
        stopped: tuple[str, int, str],
    ) -> None:
        method, size, word = stopped
        location = await near.start_upload(NAME)
        data = DATA[:size]
        verb = {"partNumber": "PUT", "/staging/": "PUT", "/blobs/sha256/": "PUT"}.get(word, "POST")
        gate = Gate(network, verb, word)
        params = {"digest": str(Digest.of(data))} if method == "PUT" else {}
        late = asyncio.create_task(near.http.request(method, location, params=params, content=data))
        await gate.reached()
        movable_clock.forward(7 * 86_400)
        job = find_job(near.opened, "upload-expiry")
        assert await job.run() == 1
        await require_nothing_kept(near)
        assert bucket.list_uploads() == []
        gate.open()
        assert (await late).status_code in {404, 409}
        await require_nothing_kept(near)
        assert bucket.list_uploads() == []

    async def test_it_harms_nothing_of_who_came_later(
        self, movable_clock: MovableClock, near: Api, network: Flaky
    ) -> None:
        location = await near.start_upload(NAME)
        gate = Gate(network, "PUT", "/blobs/sha256/")
        digest = Digest.of(b"small")
        await near.http.patch(location, content=b"small")
        params = {"digest": str(digest)}
        late = asyncio.create_task(near.http.put(location, params=params))
        await gate.reached()
        movable_clock.forward(upload_leases.LEASE_S + 1)
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
