"""Fixtures of the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from storage.s3.driver import S3Driver
from tests.storage.s3.helpers import PART
from tests.storage.session_rows import SessionRowDriver
from tests.support.servers.seaweed import Bucket


@pytest.fixture
async def driver(bucket: Bucket) -> AsyncIterator[SessionRowDriver]:
    """Yield a store with the smallest possible parts."""
    store = S3Driver(bucket.settings(part_size=PART))
    await store.start()
    yield SessionRowDriver(store)
    await store.close()
