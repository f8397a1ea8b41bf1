"""Fixtures of the tests of this folder."""

import pytest

from tests.api.conftest import Api
from tests.api.deletes.helpers import CONFIG, DIGEST, NAME, RAW


@pytest.fixture
def driver() -> str:
    return "memory"  # manifests are in the database, so the store makes no difference


@pytest.fixture
async def ready(api: Api) -> Api:
    """Return a registry with RAW in team/app under two tags."""
    await api.push_blob(NAME, CONFIG)
    await api.put_manifest(NAME, f"{DIGEST}?tag=a&tag=b", RAW)
    return api
