"""Helpers of the tests of this folder."""

import httpx
import pytest

from registry.oci.media_types import OCI_MANIFEST
from storage.digest import Digest
from tests.api.conftest import Api
from tests.support.kit import image_manifest

LOCAL = pytest.mark.parametrize("driver", ["local"])
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CONFIG = b"{}"
RAW = image_manifest(CONFIG, [])
DIGEST = Digest.of(RAW)
NAME = "team/app"


def referrer_of(subject: Digest) -> bytes:
    """Return a manifest that has the digest as its subject."""
    described = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 7}
    return image_manifest(CONFIG, [], subject=described)


def url(reference: object, name: str = NAME) -> str:
    return f"/v2/{name}/manifests/{reference}"


async def list_tags(api: Api, name: str = NAME) -> list[str]:
    answer = await api.http.get(f"/v2/{name}/tags/list")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["tags"])


async def delete(api: Api, reference: object, name: str = NAME) -> httpx.Response:
    return await api.http.delete(url(reference, name))
