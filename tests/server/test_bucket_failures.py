"""A server whose bucket fails responds 503 in time, never 500, and recovers with the bucket."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.support.content import distinct_words
from tests.support.flaky import (
    LATE_ERROR,
    STALL,
    UNAVAILABLE,
    Fault,
    Flaky,
    Judge,
    flaky,
)
from tests.support.servers.seaweed import Bucket
from tests.support.servers.server import Server, serving

PART = 5 << 20
DATA = distinct_words(2 * PART) + b"the end"
LIMIT = 60.0
"""Time limit for a response during any failure of the store, in seconds."""
HEAL = 60.0
"""Time limit for the recovery after the store returns, in seconds."""
BLOBS = "/v2/team/app/blobs"


@dataclass(frozen=True)
class Place:
    """A server and the proxy to its bucket, which the test controls."""

    http: httpx.Client
    network: Flaky

    def push(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        answer = self.http.post(f"{BLOBS}/uploads/", params={"digest": str(digest)}, content=data)
        assert answer.status_code == 201, answer.text
        return digest

    def begin(self, data: bytes) -> str:
        location = str(self.http.post(f"{BLOBS}/uploads/").headers["Location"])
        assert self.http.patch(location, content=data).status_code == 202
        return location

    def pull(self, digest: Digest) -> bytes:
        answer = self.http.get(f"{BLOBS}/{digest}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def heal(self) -> None:
        """End the failure of the store, and require that the server recovers in time."""
        self.network.judge = lambda _method, _target: None
        back = time.monotonic()
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() - back < HEAL
            time.sleep(0.05)


@pytest.fixture
def place(bucket: Bucket, tmp_path: Path) -> Iterator[Place]:
    with flaky(bucket.endpoint) as network:
        settings = {
            **bucket.overrides(),
            "storage.driver": "s3",
            "storage.endpoint": network.url,
            "storage.part_size": "5MiB",
        }
        environ = {f"MOORAGE_{k.upper().replace('.', '__')}": v for k, v in settings.items()}
        server = Server(tmp_path / "data", settings=environ)
        with (
            serving(server),
            httpx.Client(base_url=server.url, trust_env=False, timeout=100) as http,
        ):
            yield Place(http, network)


def require_unavailable(request: Callable[[], httpx.Response]) -> None:
    begun = time.monotonic()
    answer = request()
    assert time.monotonic() - begun < LIMIT
    assert answer.status_code == 503, answer.text
    assert answer.json()["errors"][0]["code"] == "UNAVAILABLE"
    assert answer.headers["Retry-After"] == "5"


def only(fault: Fault, method: str, word: str) -> Judge:
    return lambda m, target: fault if m == method and word in target else None


def always(fault: Fault) -> Judge:
    return lambda _method, _target: fault


def refused(network: Flaky) -> None:
    network.refuse()


def stalled(network: Flaky) -> None:
    network.judge = always(STALL)


def overloaded(network: Flaky) -> None:
    network.judge = always(UNAVAILABLE)


@pytest.mark.parametrize("broken", [refused, stalled, overloaded])
def test_a_store_that_serves_nobody(place: Place, broken: Callable[[Flaky], None]) -> None:
    digest = place.push(DATA)
    begun = place.begin(DATA[:100])
    larger = place.begin(DATA[: PART + 100])
    new = Digest.of(b"new")
    broken(place.network)
    requests: list[Callable[[], httpx.Response]] = [
        lambda: place.http.get(f"{BLOBS}/{digest}"),
        lambda: place.http.get(f"{BLOBS}/{digest}", headers={"Range": "bytes=1-2"}),
        lambda: place.http.patch(larger, content=DATA[PART + 100 :]),
        lambda: place.http.put(begun, params={"digest": str(Digest.of(DATA[:100]))}),
        lambda: place.http.post(f"{BLOBS}/uploads/", params={"digest": str(new)}, content=b"new"),
    ]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(require_unavailable, requests))
    # Requests that need no store still work.
    assert place.http.head(f"{BLOBS}/{digest}").status_code == 200
    assert place.http.post(f"{BLOBS}/uploads/").status_code == 202
    if place.network._listener is None:
        place.network.listen()
    place.heal()
    assert place.pull(digest) == DATA
    assert place.http.patch(larger, content=DATA[PART + 100 :]).status_code == 202
    answer = place.http.put(larger, params={"digest": str(digest)})
    assert answer.status_code == 201, answer.text
    assert place.pull(place.push(b"new")) == b"new"


def test_half_of_the_requests(place: Place) -> None:
    count = iter(range(100_000))
    place.network.judge = lambda _method, _target: UNAVAILABLE if next(count) % 2 else None
    for number in range(3):
        data = DATA + bytes([number])
        assert place.pull(place.push(data)) == data
    assert next(count) > 20  # requests did hit the failure


@pytest.mark.parametrize(
    ("fault", "method", "word"),
    [
        (LATE_ERROR, "POST", "uploadId="),
        (Fault(taken=PART // 2), "PUT", "partNumber"),
        (Fault(after=0), "PUT", "partNumber"),
        (UNAVAILABLE, "POST", "?uploads"),
        (UNAVAILABLE, "HEAD", "/blobs/parts/"),
    ],
    ids=["error in a 200", "cut part", "lost answer", "begin", "size"],
)
def test_a_push_of_parts_that_cannot_be_finished(
    place: Place, fault: Fault, method: str, word: str
) -> None:
    digest = Digest.of(DATA)
    location = place.begin(b"")
    place.network.judge = only(fault, method, word)
    put = {"digest": str(digest)}
    require_unavailable(lambda: place.http.put(location, params=put, content=DATA))
    assert place.http.head(f"{BLOBS}/{digest}").status_code == 404  # the push was not acknowledged
    place.heal()
    assert place.push(DATA) == digest
    assert place.pull(digest) == DATA


def test_a_body_that_is_cut_is_taken_up_or_ends_the_connection(place: Place) -> None:
    digest = place.push(DATA)
    before = len(place.network.seen)
    cuts = iter([Fault(after=100_000), Fault(after=PART)])
    place.network.judge = lambda method, _target: next(cuts, None) if method == "GET" else None
    assert place.pull(digest) == DATA
    assert len(place.network.seen) - before == 3
    place.network.judge = only(Fault(after=1000), "GET", "/blobs/")
    with pytest.raises(httpx.RemoteProtocolError):
        place.http.get(f"{BLOBS}/{digest}")
    place.heal()
    assert place.pull(digest) == DATA  # the blob is not marked as damaged
