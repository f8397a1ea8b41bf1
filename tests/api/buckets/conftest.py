"""A registry on a bucket, behind a proxy that the test controls."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.api.buckets.content import PARTS
from tests.api.conftest import Api, Started
from tests.support.flaky import Flaky, flaky
from tests.support.servers.seaweed import Bucket


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
