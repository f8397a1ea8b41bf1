"""A bucket that fails."""

import time

import pytest

from storage.digest import Digest
from tests.api.buckets.content import DATA, DIGEST, NAME, PART, blob
from tests.api.conftest import Api
from tests.support.flaky import UNAVAILABLE, Fault, Flaky
from tests.support.kit import (
    codes,
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
