"""The limit of the bytes per second that a mirror fetches."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry.oci.names import RepositoryName
from registry.services.mirrors.download import ThrottledBody
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import MirrorOptions
from registry.services.mirrors.upstreams import Upstreams
from registry.services.throttle import Throttle

pytestmark = pytest.mark.anyio


class Pieces:
    """A body of pieces of 100 bytes."""

    def __init__(self, count: int) -> None:
        self.size = 100 * count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.size // 100):
            yield bytes(100)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the throttle has slept, by a clock that only it moves."""
    now, slept = [1000.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    clock, loop = SimpleNamespace(monotonic=lambda: now[0]), SimpleNamespace(sleep=sleep)
    monkeypatch.setattr("registry.services.throttle.time", clock)
    monkeypatch.setattr("registry.services.throttle.asyncio", loop)
    return slept


async def read(limit: Throttle, count: int) -> int:
    return sum([len(piece) async for piece in ThrottledBody(Pieces(count), limit)])


async def test_bodies_share_the_rate(slept: list[float]) -> None:
    limit = Throttle(1000)
    assert await read(limit, 5) + await read(limit, 15) == 2000
    assert sum(slept) == pytest.approx(2.0)


async def test_no_rate_is_no_limit(slept: list[float]) -> None:
    await read(Throttle(0), 20)
    assert slept == []


async def test_a_mirror_has_one_limit_until_it_changes(tmp_path: Path) -> None:
    upstreams = Upstreams(tmp_path)
    url = "https://a.example"
    mirror = Mirror("a", RepositoryName("a"), url, MirrorOptions(rate="50MiB"))
    limit = upstreams.get_throttle(mirror)
    assert upstreams.get_throttle(mirror) is limit
    limit.charge(50 << 20)
    assert 0.5 < limit.delay <= 1.0
    changed = Mirror("a", RepositoryName("a"), url, MirrorOptions(), version=1)
    other = upstreams.get_throttle(changed)
    other.charge(50 << 20)
    assert other.delay == 0
    await upstreams.close()
