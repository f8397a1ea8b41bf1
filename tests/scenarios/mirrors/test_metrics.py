"""What the metrics say about the requests to a mirror and its upstream."""

import asyncio
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import PREFIX, Image, Place, push, run_place
from tests.scenarios.mirrors.test_pulls import fail, new_name, pull
from tests.support.kit import Kit

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

_LINE = re.compile(r"^moorage_mirror_(\w+?)(?:_total)?\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"], scope="module")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    yield from run_place(tmp_path_factory.mktemp("metrics"), workers=request.param)


def read(place: Place) -> dict[str, int]:
    """Return the metrics of mirrors by name and the values of their labels."""
    text = httpx.get(f"{place.mirror.url}/metrics", timeout=60).text
    found = {}
    for name, labels, value in _LINE.findall(text):
        values = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if values.pop("mirror", None) == PREFIX and not name.endswith("_created"):
            found[" ".join([name, *values.values()])] = int(float(value))
    return found


def added(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name, 0)
    }


def require_added(place: Place, before: dict[str, int], wanted: dict[str, int]) -> dict[str, int]:
    """Wait until the metrics have grown so. Other workers add repetitions a moment later."""
    deadline = time.monotonic() + 30
    while (found := added(before, after := read(place))) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return after


async def test_hits_misses_and_bytes_are_counted(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("counted", 100_000)
    await push(source, name, "1.0", image)
    base = f"/v2/{PREFIX}/{name}"
    # The first request of a process sets `upstream_up`.
    await asyncio.gather(*(http.head(f"{base}/manifests/1.0") for _ in range(20)))
    size, blobs = len(image.raw), len(image.config) + len(image.layer)
    name = new_name()
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "1.0", image)
    before = read(place)
    await pull(http, base, "1.0")
    wanted = {
        "requests manifest miss": 1,
        "requests blob miss": 2,
        "received_bytes": size + blobs,
        "sent_bytes manifest": size,
        "sent_bytes blob": blobs,
    }
    seen = require_added(place, before, wanted)
    for _ in range(4):  # some of them from memory
        await pull(http, base, "1.0")
    wanted = {
        "requests manifest hit": 4,
        "requests blob hit": 8,
        "sent_bytes manifest": 4 * size,
        "sent_bytes blob": 4 * blobs,
    }
    require_added(place, seen, wanted)


async def test_confirmed_tags_are_hits_and_moved_ones_misses(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name = new_name()
    await push(source, name, "1.0", Image.make("first"))
    path = f"/v2/{PREFIX}/{name}/manifests/1.0"
    assert (await http.get(path)).status_code == 200
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        before = read(place)
        assert (await http.head(path)).status_code == 200
        seen = require_added(place, before, {"requests manifest hit": 1})
        await push(source, name, "1.0", Image.make("second"))
        assert (await http.head(path)).status_code == 200
        assert added(seen, read(place))["requests manifest miss"] == 1


async def test_stale_and_unknown_content_and_errors_are_counted(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    name, image = new_name(), Image.make("stale")
    await push(source, name, "1.0", image)
    base = f"/v2/{PREFIX}/{name}"
    await pull(http, base, "1.0")
    before = read(place)
    assert (await http.get(f"{base}/manifests/2.0")).status_code == 404
    assert (await http.get(f"{base}/blobs/{Digest.of(b'unknown')}")).status_code == 404
    wanted = {"requests manifest unknown": 1, "requests blob unknown": 1}
    require_added(place, before, wanted)
    with place.changed(["--tag-ttl", "0s"], ["--tag-ttl", "1h"]):
        fail(place, "refused")
        before = read(place)
        for _ in range(12):  # each worker has a breaker of its own
            assert (await http.get(f"{base}/manifests/1.0")).status_code == 200
        assert (await http.get(f"/v2/{PREFIX}/{new_name()}/manifests/1.0")).status_code == 503
        found = added(before, read(place))
        assert found["requests manifest stale"] == 12
        assert found["requests manifest error"] == 1
        assert read(place)["upstream_up"] == 0
        place.proxy.accept()
    # A changed mirror has a new client.
    assert (await http.get(f"/v2/{PREFIX}/{new_name()}/manifests/1.0")).status_code == 404
