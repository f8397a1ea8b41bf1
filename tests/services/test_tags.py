"""Copying a tag to another repository."""

import asyncio

import pytest

from registry.auth.policy.principals import OPERATOR
from registry.oci.media_types import OCI_INDEX
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest
from tests.services.gc.conftest import Yard, open_yard, sweeping, yard
from tests.support.kit import descriptor, index_manifest

__all__ = ["open_yard", "sweeping", "yard"]

pytestmark = pytest.mark.anyio

LAYERS = 30


async def test_indexes_that_share_their_children_are_copied_once_each(yard: Yard) -> None:
    """Each of 30 layers names both indexes of the layer below: there are 2^30 ways down."""
    below: list[bytes] = []
    for layer in range(LAYERS):
        named = [descriptor(raw, OCI_INDEX) for raw in below]
        pair = [
            index_manifest([], manifests=named, annotations={"of": f"{layer}.{n}"}) for n in "ab"
        ]
        for raw in pair:
            await yard.put_manifest("app", str(Digest.of(raw)), raw)
        below = pair
    await yard.put_manifest("app", "deep", below[0])
    copying = yard.opened.registry.tags.copy(
        RepositoryName("app"), Tag("deep"), RepositoryName("other"), Tag("deep"), OPERATOR
    )
    async with asyncio.timeout(30):
        digest = await copying
    answer = await yard.http.get(f"/v2/other/manifests/{digest}")
    assert answer.content == below[0]
