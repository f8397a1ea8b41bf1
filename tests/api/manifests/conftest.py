"""Fixtures of the tests of this folder."""

import pytest

from tests.api.conftest import Api
from tests.api.manifests.helpers import EMPTY


@pytest.fixture
def driver() -> str:
    return "memory"  # manifests are in the database, so the store makes no difference


@pytest.fixture
async def ready(api: Api) -> Api:
    """Return a registry whose team/app has the empty config, so that RAW can be pushed."""
    await api.push_blob("team/app", EMPTY)
    return api
