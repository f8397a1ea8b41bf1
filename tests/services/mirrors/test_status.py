"""The state of a mirror: the quota, the breaker and the last error of its upstream."""

import pytest

from registry import metrics
from registry.client.refusals import RateLimit
from registry.client.upstream import Upstream
from registry.errors import UpstreamCredentialsError, UpstreamUnknownError
from registry.oci.names import RepositoryName
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import MirrorOptions
from registry.services.mirrors.status import find_state
from registry.services.mirrors.upstreams import Upstreams

pytestmark = pytest.mark.anyio

NAME = "hub-of-test-status"
MIRROR = Mirror(NAME, RepositoryName("hub"), "https://registry.example", MirrorOptions())


async def use(
    upstreams: Upstreams, error: Exception | None = None, left: int | None = None
) -> None:
    """Use the client as a request does whose response has a quota, or that fails."""
    async with upstreams.use(MIRROR) as upstream:
        assert isinstance(upstream, Upstream)
        if left is not None:
            upstream.rate_limit = RateLimit(100, left, 21600)
        with upstream.breaker.watch():
            if error is not None:
                raise error


async def test_the_state_follows_the_upstream(tmp_path: object) -> None:
    upstreams = Upstreams(tmp_path)  # type: ignore[arg-type]
    try:
        assert find_state(upstreams, NAME).is_up is None
        await use(upstreams, left=76)
        found = find_state(upstreams, NAME)
        assert (found.is_up, found.quota_limit, found.quota_remaining) == (True, 100, 76)
        await use(upstreams, left=75)
        assert find_state(upstreams, NAME).quota_remaining == 75
        with pytest.raises(UpstreamUnknownError):
            await use(upstreams, UpstreamUnknownError("unknown"))
        assert find_state(upstreams, NAME).failure is None
        with pytest.raises(UpstreamCredentialsError):
            await use(upstreams, UpstreamCredentialsError("the password is refused"))
        found = find_state(upstreams, NAME)
        assert found.is_up is False
        assert found.failure is not None
        assert found.failure.message == "the password is refused"
    finally:
        await upstreams.close()


def test_results_and_bytes_are_added_up() -> None:
    for kind, result, times in (("manifest", "hit", 3), ("blob", "hit", 2), ("blob", "miss", 1)):
        metrics.MIRROR_REQUESTS.labels(NAME, kind, result).inc(times)
    for kind in ("manifest", "blob"):
        metrics.MIRROR_SENT_BYTES.labels(NAME, kind).inc(10)
    metrics.MIRROR_RECEIVED_BYTES.labels(NAME).inc(7)
    found = find_state(Upstreams(None), NAME)  # type: ignore[arg-type]
    assert found.results == {"hit": 5, "miss": 1}
    assert (found.sent_bytes, found.received_bytes) == (20, 7)
