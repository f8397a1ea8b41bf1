"""Helpers of the tests of this folder."""

import pytest

from storage.digest import Digest

DATA = bytes(range(256)) * 4
ABSENT = Digest.of(b"nobody pushed this")
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LOCAL = pytest.mark.parametrize("driver", ["local"])


def url(name: str, digest: Digest | str) -> str:
    return f"/v2/{name}/blobs/{digest}"


def immutable(digest: Digest) -> dict[str, str]:
    return {"etag": f'"{digest}"', "cache-control": "public, max-age=31536000, immutable"}
