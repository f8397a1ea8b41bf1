"""Helpers of the tests of this folder."""

from typing import Any

import httpx
import pytest

from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import (
    CONFIG,
    descriptor,
    image_manifest,
)

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
EMPTY = b"{}"
IMAGE: dict[str, Any] = {"schemaVersion": 2, "config": descriptor(EMPTY, CONFIG), "layers": []}
INDEX: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
RAW = image_manifest(EMPTY, [])
DIGEST = Digest.of(RAW)
NO_DIGESTS = [
    "sha256:",
    "sha256:" + 63 * "a",
    "sha256:" + 64 * "A",
    "sha256:" + 64 * "g",
    "sha512:" + 64 * "a",
    "sha384:" + 96 * "a",
    "md5:" + 32 * "a",
    "SHA256:" + 64 * "a",
    "latest:",
    ":",
]
NO_TAGS = [".hidden", "-x", "a" * 129, "a+b", "a@b", "a~"]


def url(reference: object, name: str = "team/app") -> str:
    return f"/v2/{name}/manifests/{reference}"


async def put(api: Api, raw: bytes, content_type: str | None = None) -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await api.http.put(url("t"), content=raw, headers=headers)


async def require_stored(api: Api, raw: bytes, media_type: str, reference: object = "t") -> None:
    answer = await api.http.get(url(reference))
    assert (answer.status_code, answer.content) == (200, raw)
    assert answer.headers["Content-Type"] == media_type
