"""Endpoint 1: the version check of the API."""

import pytest

from tests.api.conftest import Api

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_1_base_says_what_it_is(api: Api, path: str) -> None:
    answer = await api.http.get(path)
    assert answer.status_code == 200
    assert answer.json() == {}
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
