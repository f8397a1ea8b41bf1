"""Helpers of the tests of this folder."""

import httpx
import pytest

from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import codes

NAME = "team/app"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"
FORM = "application/x-www-form-urlencoded"
DATA = b"a blob of the team"
DIGEST = Digest.of(DATA)
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def post(api: Api, **fields: str) -> httpx.Response:
    return await api.http.post("/token", data=fields)


def require_basic_challenge(answer: httpx.Response) -> None:
    assert answer.status_code == 401, answer.text
    assert codes(answer) == ["UNAUTHORIZED"]
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="moorage"'
